//! Types as casts name them: the few that can feed a sharding key, the built-in ones whose values mean the same on
//! every shard, and the rest.

use sqlparser::ast::{ArrayElemTypeDef, DataType, ObjectName, ObjectNamePart};

use super::Converter;
use super::names::name_of;
use crate::sql::statement::Type;

impl Converter {
    pub(super) fn type_of(parsed: &DataType) -> Type {
        match parsed {
            DataType::Int2(None) | DataType::SmallInt(None) => Type::Int2,
            DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => Type::Int4,
            DataType::Int8(None) | DataType::BigInt(None) => Type::Int8,
            DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) => {
                Type::Text
            }
            DataType::Uuid => Type::Uuid,
            DataType::Varchar(_)
            | DataType::CharacterVarying(_)
            | DataType::Char(_)
            | DataType::Character(_)
            | DataType::Numeric(_)
            | DataType::Decimal(_)
            | DataType::Dec(_)
            | DataType::Float(_)
            | DataType::Float4
            | DataType::Float8
            | DataType::Real
            | DataType::Double(_)
            | DataType::DoublePrecision
            | DataType::Bool
            | DataType::Boolean
            | DataType::Date
            | DataType::Time(..)
            | DataType::Timestamp(..)
            | DataType::Interval { .. }
            | DataType::JSON
            | DataType::JSONB
            | DataType::Bytea
            | DataType::Bit(_)
            | DataType::BitVarying(_) => Type::Plain("built-in"),
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => {
                match Self::type_of(element) {
                    Type::Other(name) => Type::Other(name),
                    Type::Plain(_) => Type::Plain("array"),
                    // Arrays have no depth: `int[][]` is `int[]`.
                    array @ Type::Array(_) => array,
                    element => Type::Array(Box::new(element)),
                }
            }
            DataType::Custom(name, modifiers) if modifiers.is_empty() => custom(name),
            other => Type::Other(other.to_string()),
        }
    }
}

/// Names that the parser has no word for. A schema in front of them decides nothing but `pg_catalog`'s.
fn custom(name: &ObjectName) -> Type {
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(name_of(ident)),
            ObjectNamePart::Function(_) => None,
        })
        .collect();
    let bare = match parts.as_slice() {
        [bare] => bare.as_str(),
        [schema, bare] if schema == "pg_catalog" => bare.as_str(),
        _ => return Type::Other(name.to_string()),
    };
    match bare {
        "int2" => Type::Int2,
        "int4" => Type::Int4,
        "int8" => Type::Int8,
        "text" | "varchar" => Type::Text,
        "uuid" => Type::Uuid,
        "timestamptz" | "timetz" | "bpchar" | "numeric" | "float4" | "float8" | "bool" | "date"
        | "time" | "timestamp" | "interval" | "json" | "jsonb" | "bytea" | "inet" | "cidr"
        | "macaddr" | "point" | "money" => Type::Plain("built-in"),
        _ => Type::Other(name.to_string()),
    }
}
