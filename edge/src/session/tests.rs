//! The conversation, row by row.
