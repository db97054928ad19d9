//! What each page shows, as plain values for its template: every number is text already, every link
//! is made.

mod llm_summary;
mod component;
mod dictionaries;
mod transcripts;
mod explained;
mod faithful;
mod feature;
mod glossary;
mod graph;
mod head;
mod index;
mod lists;
mod intervention_links;
mod parts;
mod scores;
mod task;
mod together;

pub use component::ComponentView;
pub use dictionaries::DictionariesView;
pub use feature::FeatureView;
pub use glossary::GlossaryView;
pub use graph::{Drawn, GraphView, drawn};
pub use index::IndexView;
pub use lists::{ComponentsView, FeaturesView, PairsView, SearchView};
pub use task::TaskView;
pub use together::{GroupView, PairView};
pub use transcripts::{TranscriptsView, subjects};
