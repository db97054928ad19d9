//! What each page shows, as plain values for its template: every number is text already, every link
//! is made.

mod card;
mod llm_summary;
mod component;
mod dictionaries;
mod transcripts;
mod why;
mod explained;
mod faithful;
mod feature;
mod glossary;
mod graph;
mod frame;
mod head;
mod how_to_read;
mod index;
mod lists;
mod intervention_links;
mod parts;
mod scores;
mod task;
mod together;

pub(super) use card::CardView;
pub(super) use component::ComponentView;
pub(super) use dictionaries::DictionariesView;
pub(super) use feature::FeatureView;
pub(super) use frame::{GraphsView, MissingView, MovedView, TasksView};
pub(super) use glossary::GlossaryView;
pub(super) use graph::{Drawn, GraphView, drawn};
pub(super) use how_to_read::HowToReadView;
pub(super) use index::IndexView;
pub(super) use lists::{ComponentsView, FeaturesView, PairsView, SearchView};
pub(super) use task::TaskView;
pub(super) use together::{GroupView, PairView};
pub(super) use transcripts::{TranscriptsView, subjects};
