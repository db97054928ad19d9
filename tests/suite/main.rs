//! The tests, in one binary: a module a topic.

#![allow(clippy::unwrap_used)]

mod bench;
mod fixture;

mod attribution;
mod browser;
mod corpus;
mod damaged;
mod dictionary;
mod discover;
mod documents;
mod explained;
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
mod llm;
mod llm_server;
mod machines;
mod messages;
mod model;
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
mod show;
mod site;
mod statistics;
mod steer;
mod suspects;
mod task;
mod trace;
mod verify;
mod widened;
