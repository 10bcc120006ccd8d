//! Statement + knowledge → [`Plan`], or a numbered [`Refusal`]. Pure: a plan is made once per text and prepared
//! statement; [`Plan::target`] is what is left to do at each execution.

use crate::catalog::Catalog;
use crate::names::ShardId;
use crate::placement::{KeyType, Placement};

/// All that planning may look at.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    pub catalog: &'a Catalog,
    pub placement: &'a Placement,
}

/// What was decided about one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub route: Route,
    pub effect: Effect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Proven to need this shard, whatever the parameters.
    One(ShardId),
    /// The same answer on every shard (reference tables, statements without tables): whichever is at hand.
    Any,
    /// The authoritative shard only (system catalogues).
    Authoritative,
    /// One shard, named by the value of a parameter.
    Key { parameter: u16, key_type: KeyType },
    /// All shards, rows concatenated: a plain projection.
    Every,
}

/// Whether running it twice, or on one shard while another fails, could leave something half done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Read,
    Write,
}
