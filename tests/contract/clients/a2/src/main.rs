//! Sends the pushes that it reads with a2, and writes what became of each.
//!
//! Its input and output are those of every program here; see judgements.py. It goes to Apple's own
//! name, which is mapped to the twin.

use client::request::notification::CollapseId;
use client::request::payload::PayloadLike;
use client::{Client, ClientConfig, Error, NotificationOptions, Priority, PushType};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::value::RawValue;
use std::{env, fs::File, io};

#[derive(Debug)]
struct Push<'a> {
    token: &'a str,
    options: NotificationOptions<'a>,
    payload: Box<RawValue>,
}

impl Serialize for Push<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.payload.serialize(serializer)
    }
}

impl PayloadLike for Push<'_> {
    fn get_device_token(&self) -> &str {
        self.token
    }

    fn get_options(&self) -> &NotificationOptions<'_> {
        &self.options
    }
}

fn push_type(name: &str) -> Option<PushType> {
    Some(match name {
        "" => return None,
        "background" => PushType::Background,
        "location" => PushType::Location,
        "voip" => PushType::Voip,
        "fileprovider" => PushType::FileProvider,
        "mdm" => PushType::Mdm,
        "liveactivity" => PushType::LiveActivity,
        "pushtotalk" => PushType::PushToTalk,
        _ => PushType::Alert,
    })
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

async fn send(client: &Client, line: &str) -> String {
    let fields: Vec<&str> = line.split('\t').collect();
    let options = NotificationOptions {
        apns_id: given(fields[6]),
        apns_push_type: push_type(fields[2]),
        apns_expiration: fields[4].parse().ok(),
        apns_priority: given(fields[3]).map(|said| match said {
            "5" => Priority::Normal,
            _ => Priority::High,
        }),
        apns_topic: given(fields[1]),
        apns_collapse_id: given(fields[5]).and_then(|id| CollapseId::new(id).ok()),
    };
    let payload = RawValue::from_string(fields[7].to_owned()).expect("the payload is JSON");
    let (status, reason, since, id) =
        match client.send(Push { token: fields[0], options, payload }).await {
            Ok(answer) => (answer.code, String::new(), None, answer.apns_id),
            Err(Error::ResponseError(answer)) => {
                let (reason, since) = match answer.error {
                    Some(body) => (format!("{:?}", body.reason), body.timestamp),
                    None => (String::new(), None),
                };
                (answer.code, reason, since, answer.apns_id)
            }
            Err(other) => (0, other.to_string(), None, None),
        };
    let since = since.map(|at| at.to_string()).unwrap_or_default();
    format!("{status}\t{reason}\t{since}\t{}", id.unwrap_or_default())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let said = |name: &str| env::var(name).expect("judgements.py tells it");
    let key = File::open(said("CLIENT_KEY_FILE")).expect("the key is there");
    let (key_id, team) = (said("CLIENT_KEY_ID"), said("CLIENT_TEAM_ID"));
    let client = Client::token(key, key_id, team, ClientConfig::default()).expect("a client");
    let lines: Vec<String> = io::stdin().lines().map(|line| line.expect("text")).collect();
    // The first goes alone, as Apple asks of a new connection.
    println!("{}", send(&client, &lines[0]).await);
    if env::var("CLIENT_IN_TURN").is_ok() {
        for line in &lines[1..] {
            println!("{}", send(&client, line).await);
        }
    } else {
        for result in join_all(lines[1..].iter().map(|line| send(&client, line))).await {
            println!("{result}");
        }
    }
}
