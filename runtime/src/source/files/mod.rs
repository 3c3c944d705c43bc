//! Which files a source has, and which they were. It never reads a record.
