//! What each page shows, as plain values for its template: every number is text already, every link
//! is made.

mod books;
mod component;
mod dictionaries;
mod exchange;
mod explained;
mod faithful;
mod feature;
mod graph;
mod head;
mod index;
mod lists;
mod live;
mod parts;
mod scores;
mod task;
mod together;

pub use component::ComponentView;
pub use dictionaries::DictionariesView;
pub use exchange::{ExchangesView, subjects};
pub use feature::FeatureView;
pub use graph::{Drawn, GraphView, drawn};
pub use index::IndexView;
pub use lists::{ComponentsView, FeaturesView, PairsView, SearchView};
pub use task::TaskView;
pub use together::{GroupView, PairView};
