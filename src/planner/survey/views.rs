//! Views: what a view's name in FROM stands for is its query in parentheses, which is how PostgreSQL reads it too. Nothing
//! of that reaches a server: there the view is a view, with the rights of its owner.

use std::sync::Arc;

use super::{Survey, Surveyed};
use crate::catalog::Relation;
use crate::planner::refusal::{Number, Refusal};
use crate::planner::scope::{Output, Outputs};

/// Views inside of views that are looked into.
pub const VIEWS_MAX: usize = 16;

impl Survey<'_> {
    pub(super) fn view(&mut self, relation: &Relation) -> Surveyed<Outputs> {
        let refuse = |why: &str| {
            let about = format!("{}, {why}", relation.full_name());
            Err(Refusal::about(Number::View, about))
        };
        if self.views >= VIEWS_MAX {
            return refuse("which stands in too many other views");
        }
        let Some(query) = relation.view.as_ref().and_then(|view| view.query()) else {
            return refuse("whose query is not understood");
        };
        let query = Arc::clone(query);
        self.facts
            .obstacle(Number::SubqueryOverShards, relation.full_name());
        // The names of the statement around it mean nothing inside.
        let ctes = std::mem::take(&mut self.ctes);
        self.views += 1;
        let outputs = self.query(&query, None);
        self.views -= 1;
        self.ctes = ctes;
        Ok(named(&outputs?, relation))
    }
}

/// With the names that the catalogue gives the columns. Where it is not known which column is which, none of them is a
/// key.
fn named(outputs: &Outputs, relation: &Relation) -> Outputs {
    let known = !outputs.open && outputs.columns.len() == relation.columns.len();
    let keys = outputs.columns.iter().map(|output| output.key);
    let keys = keys.filter(|_| known).chain(std::iter::repeat(None));
    let columns = relation
        .columns
        .iter()
        .zip(keys)
        .map(|(column, key)| Output {
            name: Some(column.name.clone()),
            key,
            values: None,
        });
    Outputs {
        columns: columns.collect(),
        open: false,
        reference: outputs.reference,
    }
}
