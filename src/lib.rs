pub mod artifact;
pub mod circuit;
pub mod dictionary;
pub mod config;
pub mod error;
pub mod ids;
pub mod model;
pub mod stats;
