//! The tests, in one binary: a module a topic.

#![allow(clippy::unwrap_used)]

mod bench;
mod browser;
mod fixture;

mod attribution;
mod corpus;
mod damaged;
mod dictionary;
mod discover;
mod documents;
mod explained;
mod explore;
mod faithful;
mod formats;
mod gradient;
mod graphs;
mod heads;
mod hub;
mod influence;
mod intervention;
mod judged;
mod left_out;
mod lists;
mod llm;
mod llm_server;
mod machines;
mod messages;
mod model;
mod nightly;
mod outputs;
mod outside;
mod pipeline;
mod plants;
mod processes;
mod promote;
mod prompts;
mod real_llm;
mod refusals;
mod rooms;
mod saelens;
mod shared_work;
mod show;
mod site;
mod statistics;
mod steer;
mod suspects;
mod taken;
mod task;
mod theme;
mod trace;
mod validators;
mod verify;
mod widened;
