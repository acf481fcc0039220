//! Whole or not at all: whenever something of what a device missed may be gone, it is told, and nothing is replayed.

mod pages;
