//! Not furnished yet.
#[derive(Debug)]
pub struct Catalog;
