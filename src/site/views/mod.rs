//! What each page shows, as plain values for its template: every number is text already, every link
//! is made.

mod llm_summary;
mod changes;
mod circuit;
mod component;
mod contexts;
mod data;
mod dictionaries;
mod transcripts;
mod why;
mod explained;
mod faithful;
mod feature;
mod findings;
mod feature_script;
mod glossary;
mod graph;
mod head;
mod index;
mod lists;
mod intervention_links;
mod overviews;
mod parts;
mod scores;
mod strip;
mod task;
mod together;

pub(super) use changes::{ChangedLine, ChangesView, FEED, FeedView, PAGE, changed_lines, has_feed};
pub(super) use component::ComponentView;
pub(super) use contexts::{TextsScript, text_files};
pub(super) use data::DataView;
pub(super) use dictionaries::DictionariesView;
pub(super) use explained::first_score;
pub(super) use feature::FeatureView;
pub(super) use feature_script::FeatureScript;
pub(super) use glossary::GlossaryView;
pub(super) use graph::{Drawn, GraphView, drawn};
pub(super) use index::IndexView;
pub(super) use lists::{ListView, PlainListView, SearchPageView, Way};
pub(super) use overviews::{GraphsView, TaskGraphsView, TasksView, graph_pages};
pub(super) use task::TaskView;
pub(super) use together::{GroupView, PairView};
pub(super) use transcripts::{TranscriptsView, subjects};
