//! Alerts and the dashboard in `deploy/monitoring`: promtool reads them, each alert fires in its case and has
//! a page, and the real program serves every metric they ask for.

mod expressions;
mod files;
mod pages;
mod panels;
mod rules;
mod served;
