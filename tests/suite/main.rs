//! One binary for all tests that go through the library's doors, a module a topic.

mod corpus;
mod task;
