//! Alerts and the dashboard in `deploy/monitoring`: promtool can read them, each alert fires in its case, has a page, and
//! whatever they ask for is a metric that the real program serves.

mod expressions;
mod files;
mod pages;
mod panels;
mod rules;
mod served;
