//! The tests, in one binary: a module a topic.

mod attribution;
mod dictionary;
mod discover;
mod faithful;
mod fixture;
mod intervention;
mod model;
mod promote;
mod refusals;
mod statistics;
