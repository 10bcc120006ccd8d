//! Literals and parameters.

use sqlparser::ast::{Value, ValueWithSpan};

use super::{Converter, Understood, unknown};
use crate::sql::statement::{Expr, Literal, Slotted};

impl Converter {
    pub(super) fn value(&self, parsed: &ValueWithSpan) -> Understood<Expr> {
        let slot = self.slot(parsed.span.start);
        let integer =
            |digits: &str| Some(Literal::Integer(Slotted::new(digits.parse().ok()?, slot)));
        let string = |value: &str| Literal::Text(Slotted::new(value.to_owned(), slot));
        let literal = match &parsed.value {
            Value::Number(digits, false) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                integer(digits).unwrap_or(Literal::Other)
            }
            Value::Number(..) | Value::Boolean(_) | Value::HexStringLiteral(_) => Literal::Other,
            Value::SingleQuotedString(text) => string(text),
            Value::DollarQuotedString(quoted) => string(&quoted.value),
            Value::EscapedStringLiteral(_) | Value::UnicodeStringLiteral(_) if self.escapes => {
                Literal::Escaped
            }
            Value::EscapedStringLiteral(text) | Value::UnicodeStringLiteral(text) => string(text),
            Value::Null => Literal::Null,
            Value::Placeholder(name) => {
                let number = name
                    .strip_prefix('$')
                    .and_then(|digits| digits.parse().ok());
                return number.map_or_else(
                    || unknown("a parameter that is no $n"),
                    |n| Ok(Expr::Parameter(n)),
                );
            }
            _ => return unknown("a literal of another dialect"),
        };
        Ok(Expr::Literal(literal))
    }
}
