use std::collections::VecDeque;
use std::time::Duration;

use crate::imports::{call, items, milliseconds, number, result, text};
use crate::{Result, Status};

/// A bucket of keys and values.
#[derive(Debug, Clone)]
pub struct Store {
    capability: String,
    bucket: String,
}

/// What a key holds.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What was written.
    pub value: Vec<u8>,
    /// Raised with each write of the key; never 0.
    pub revision: u64,
}

/// The instance's own bucket of a store, which it shares with the instances of its name.
pub fn kv(capability: &str) -> Store {
    Store {
        capability: capability.to_string(),
        bucket: String::new(),
    }
}

const ANY_REVISION: i64 = -1;

impl Store {
    /// Another bucket of the same store. It takes a grant of `kv:bucket:NAME`.
    pub fn bucket(&self, name: &str) -> Store {
        Store {
            capability: self.capability.clone(),
            bucket: name.to_string(),
        }
    }

    /// The value of a key, if there is one.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.read(key)?.map(|entry| entry.value))
    }

    /// What a key holds and at which revision, if it is there.
    pub fn read(&self, key: &str) -> Result<Option<Entry>> {
        match call!(kv_get & self.capability, &self.bucket, &key) {
            Ok(_) => Ok(Some(Entry {
                value: result(),
                revision: number() as u64,
            })),
            Err(e) if e.status() == Status::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether there is such a key.
    pub fn exists(&self, key: &str) -> Result<bool> {
        Ok(call!(kv_exists & self.capability, &self.bucket, &key)? > 0)
    }

    /// Writes a key and returns its new revision.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<u64> {
        self.write(key, value).send()
    }

    /// Begins a write that has a time to live or a condition.
    pub fn write<'a, V: AsRef<[u8]>>(&'a self, key: &'a str, value: V) -> Set<'a, V> {
        Set {
            store: self,
            key,
            value,
            ttl: Duration::ZERO,
            if_revision: ANY_REVISION,
        }
    }

    /// Removes a key and says whether it was there.
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.delete_at(key, ANY_REVISION)
    }

    /// Removes a key that is at this revision; else that is a conflict.
    pub fn delete_if(&self, key: &str, revision: u64) -> Result<bool> {
        self.delete_at(key, revision as i64)
    }

    fn delete_at(&self, key: &str, revision: i64) -> Result<bool> {
        Ok(call!(kv_delete & self.capability, &self.bucket, &key, = revision)? > 0)
    }

    /// Adds to a number, which is kept as decimal text, in one step, and returns the sum. A key that is not there counts as 0.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64> {
        call!(kv_increment & self.capability, &self.bucket, &key, = by)?;
        Ok(number())
    }

    /// At most `limit` keys (0 for 1000, which is the most) with a prefix that come after a key in the order of their bytes, and
    /// whether there are more.
    pub fn list(&self, prefix: &str, after: &str, limit: i32) -> Result<(Vec<String>, bool)> {
        call!(kv_list & self.capability, &self.bucket, &prefix, &after, = limit)?;
        let keys = result();
        Ok((items(&keys).into_iter().map(text).collect(), number() != 0))
    }

    /// All keys with a prefix, in the order of their bytes. It ends with an error, if there is one.
    pub fn keys(&self, prefix: &str) -> Keys<'_> {
        Keys {
            store: self,
            prefix: prefix.to_string(),
            after: String::new(),
            page: VecDeque::new(),
            more: true,
        }
    }
}

/// A write.
#[derive(Debug)]
pub struct Set<'a, V> {
    store: &'a Store,
    key: &'a str,
    value: V,
    ttl: Duration,
    if_revision: i64,
}

impl<V: AsRef<[u8]>> Set<'_, V> {
    /// How long what is written lives. Stores may round it up to whole seconds.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Only if the key is at this revision; else that is a conflict.
    pub fn if_revision(mut self, revision: u64) -> Self {
        self.if_revision = revision as i64;
        self
    }

    /// Only if there is no such key; else that is a conflict.
    pub fn if_absent(mut self) -> Self {
        self.if_revision = 0;
        self
    }

    /// Writes the key and returns its new revision.
    pub fn send(self) -> Result<u64> {
        let ttl = milliseconds(self.ttl);
        call!(kv_set & self.store.capability, &self.store.bucket, &self.key, &self.value, = ttl, = self.if_revision)?;
        Ok(number() as u64)
    }
}

/// Goes through keys.
#[derive(Debug)]
pub struct Keys<'a> {
    store: &'a Store,
    prefix: String,
    after: String,
    page: VecDeque<String>,
    more: bool,
}

impl Iterator for Keys<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && self.more {
            match self.store.list(&self.prefix, &self.after, 0) {
                Ok((keys, more)) => {
                    self.more = more && !keys.is_empty();
                    self.after = keys.last().cloned().unwrap_or_default();
                    self.page = keys.into();
                }
                Err(e) => {
                    self.more = false;
                    return Some(Err(e));
                }
            }
        }
        self.page.pop_front().map(Ok)
    }
}
