//! The real program with real servers, which say by an environment variable where they are.

mod postgres;
