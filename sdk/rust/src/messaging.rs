use std::time::Duration;

use crate::imports::{call, items, milliseconds, number, result, text};
use crate::{Result, Status};

/// Passes messages on, at most once each, between those who are there.
#[derive(Debug, Clone)]
pub struct Bus {
    capability: String,
}

/// The bus that a capability stands for.
pub fn messaging(capability: &str) -> Bus {
    Bus {
        capability: capability.to_string(),
    }
}

impl Bus {
    /// Sends a message to whoever subscribes to the subject.
    pub fn publish(&self, subject: &str, data: impl AsRef<[u8]>) -> Result<()> {
        call!(msg_publish & self.capability, &subject, &data)?;
        Ok(())
    }

    /// Sends a message and waits for one answer, for so long at the most. It is unavailable where nobody subscribes.
    pub fn request(
        &self,
        subject: &str,
        data: impl AsRef<[u8]>,
        timeout: Duration,
    ) -> Result<Vec<u8>> {
        let timeout = milliseconds(timeout).max(1);
        call!(msg_request & self.capability, &subject, &data, = timeout)?;
        Ok(result())
    }

    /// Begins to receive what is sent to a subject, in which `*` is any one token and `>` all that follow. The instances of one
    /// name share the messages.
    pub fn subscribe(&self, subject: &str) -> Result<Subscription> {
        self.open(subject, 0)
    }

    /// As [`Bus::subscribe`], where each instance has all messages.
    pub fn subscribe_each(&self, subject: &str) -> Result<Subscription> {
        self.open(subject, 1)
    }

    fn open(&self, subject: &str, flags: u32) -> Result<Subscription> {
        call!(msg_subscribe & self.capability, &subject, = flags)?;
        Ok(Subscription {
            id: number() as u32,
            ended: false,
        })
    }
}

/// What comes by one subject; as an iterator, all of it as it comes, until there is an error. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    id: u32,
    ended: bool,
}

/// A message that was received.
#[derive(Debug, Clone)]
pub struct Message {
    /// To which it was sent.
    pub subject: String,
    /// What was sent.
    pub data: Vec<u8>,
    /// Whether the sender waits for an answer.
    pub expects_reply: bool,
    /// By which it came.
    pub subscription: u32,
}

impl Message {
    /// Answers the message. It must be the one that was received last.
    pub fn reply(&self, answer: impl AsRef<[u8]>) -> Result<()> {
        call!(msg_reply & answer)?;
        Ok(())
    }
}

impl Subscription {
    /// The number by which messages name it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the next message, for so long at the most, or as long as the instance runs.
    pub fn receive(&self, timeout: Option<Duration>) -> Result<Message> {
        receive_by(self.id, timeout)
    }
}

/// Waits for the next message of any subscription.
pub fn receive(timeout: Option<Duration>) -> Result<Message> {
    receive_by(0, timeout)
}

fn receive_by(id: u32, timeout: Option<Duration>) -> Result<Message> {
    let wait = timeout.map_or(-1, milliseconds);
    let expects_reply = call!(msg_receive = id, = wait)? > 0;
    let subscription = number() as u32;
    let parts = result();
    let parts = items(&parts);
    Ok(Message {
        subject: text(parts[0]),
        data: parts[1].to_vec(),
        expects_reply,
        subscription,
    })
}

impl Iterator for Subscription {
    type Item = Result<Message>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.receive(None) {
                Err(e) if e.status() == Status::Timeout => {} // for ever is as long as the host can count
                message => {
                    self.ended = message.is_err();
                    return Some(message);
                }
            }
        }
        None
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = call!(msg_unsubscribe = self.id); // it may have been cut already
    }
}

/// How many messages were dropped, since this instance did not receive the ones before.
pub fn dropped() -> Result<i64> {
    call!(msg_dropped)?;
    Ok(number())
}
