//! Recovery in daily use: reconnect, name the last id, and continue as if nothing had happened.

mod frames;
mod leaving;
mod load;
mod python;
mod replay;
mod seam;
mod staying;
