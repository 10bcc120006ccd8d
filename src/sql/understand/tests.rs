use super::*;
use crate::sql::statement::{Expr, Literal};
