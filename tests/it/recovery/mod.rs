//! Recovery as devices live it every day: reconnect, name the last id, and go on as if nothing had been.

mod going_on;
mod leaving;
mod python;
mod replay;
mod seam;
mod shapes;
