//! The integration tests, all in one binary.

mod admin;
mod columns;
mod demo;
mod deploy;
mod dlq;
mod doctor;
mod editors;
mod enemies;
mod exits;
mod explain;
mod guests;
mod load;
mod project;
mod records;
mod replay;
mod run;
mod sandbox;
mod shadow;
mod tidy;
mod trial;
mod validate;
