//! A plan in words, always the same for the same plan: for tests, logs and people.

use super::{Plan, Route};
use crate::names::{ShardId, ShardName};
use crate::placement::KeyType;

/// One line, such as `one shard s2, primary` or `every shard, concatenated`. `shards` holds the names by `ShardId`; the
/// first is the authoritative one.
pub fn explain(plan: &Plan, shards: &[ShardName]) -> String {
    match &plan.route {
        Route::One(shard) => format!("one shard {}, primary", name(*shard, shards)),
        Route::Any => "any one shard".to_owned(),
        Route::Authoritative => format!("authoritative shard {}", name(ShardId(0), shards)),
        Route::Key {
            parameter,
            key_type,
            assigned: _,
        } => {
            format!(
                "one shard by parameter ${} ({})",
                u32::from(*parameter) + 1,
                type_name(*key_type)
            )
        }
        Route::Keys(keys) => {
            let parameters: Vec<String> = keys
                .parameters()
                .iter()
                .map(|index| format!("${}", u32::from(*index) + 1))
                .collect();
            let rest = match keys.root {
                Ok(_) => "one shard, or several concatenated",
                Err(_) => "one shard",
            };
            format!("{rest}, by {}", parameters.join(", "))
        }
        Route::Some(several) => {
            let several: Vec<String> = several.iter().map(|shard| name(*shard, shards)).collect();
            format!("shards {}, concatenated", several.join(", "))
        }
        Route::Every => "every shard, concatenated".to_owned(),
    }
}

fn name(shard: ShardId, shards: &[ShardName]) -> String {
    shards
        .get(shard.index())
        .map_or_else(|| format!("#{}", shard.0), ToString::to_string)
}

fn type_name(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::Int2 => "int2",
        KeyType::Int4 => "int4",
        KeyType::Int8 => "int8",
        KeyType::Text => "text",
        KeyType::Bpchar => "char",
        KeyType::Uuid => "uuid",
    }
}
