//! Recovery in daily use: reconnect, name the last id, and continue as if nothing had happened.

mod going_on;
mod leaving;
mod python;
mod replay;
mod seam;
mod shapes;
