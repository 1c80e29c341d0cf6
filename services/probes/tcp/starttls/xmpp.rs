//! XMPP, from a client to its server (RFC 6120 section 5).

use bytes::Buf as _;

use super::{Talk, excerpt};
use crate::{
    failure::Failure,
    wire::xmpp::{Form, TLS, Tag},
};

/// A tag, for itself.
struct Seen {
    name: String,
    form: Form,
    text: String,
}

pub(super) async fn ask(talk: &mut Talk<'_, '_>, name: &str) -> Result<(), Failure> {
    let name = name.replace('&', "&amp;").replace('\'', "&apos;").replace('<', "&lt;");
    let begin = format!(
        "<?xml version='1.0'?><stream:stream to='{name}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    talk.send(begin.as_bytes(), "the stream's beginning").await?;
    let what = "the stream's features";
    let begun = tag(talk, what).await?;
    if (begun.name.as_str(), begun.form) != ("stream", Form::Begins) {
        return Err(stranger(talk, &begun, what));
    }
    let features = tag(talk, what).await?;
    match (features.name.as_str(), features.form) {
        ("features", Form::Begins) => {}
        ("features", Form::Whole) => return Err(talk.unexpected("the server does not offer STARTTLS")),
        ("error", _) => return Err(error(talk, "a stream error").await?),
        _ => return Err(stranger(talk, &features, what)),
    }
    let mut is_offered = false;
    loop {
        let feature = tag(talk, what).await?;
        match (feature.name.as_str(), feature.form) {
            ("features", Form::Ends) => break,
            ("starttls", Form::Begins | Form::Whole) => is_offered |= feature.text.contains(TLS),
            _ => {}
        }
    }
    if !is_offered {
        return Err(talk.unexpected("the server does not offer STARTTLS"));
    }
    talk.send(format!("<starttls xmlns='{TLS}'/>").as_bytes(), "starttls").await?;
    let what = "the answer to starttls";
    let answer = tag(talk, what).await?;
    match (answer.name.as_str(), answer.form) {
        ("proceed", Form::Whole) => Ok(()),
        ("proceed", Form::Begins) => {
            let end = tag(talk, what).await?;
            if (end.name.as_str(), end.form) == ("proceed", Form::Ends) { Ok(()) } else { Err(stranger(talk, &end, what)) }
        }
        ("failure", _) => Err(talk.unexpected("the answer to starttls is a failure")),
        ("error", _) => Err(error(talk, "a stream error").await?),
        _ => Err(stranger(talk, &answer, what)),
    }
}

/// The next tag.
async fn tag(talk: &mut Talk<'_, '_>, what: &'static str) -> Result<Seen, Failure> {
    loop {
        let found = match Tag::decode(&talk.came) {
            Err(_) => return Err(talk.malformed(what, "XMPP")),
            Ok(None) => None,
            Ok(Some(tag)) => Some((Seen { name: tag.name.to_owned(), form: tag.form, text: tag.text.to_owned() }, tag.length)),
        };
        let Some((seen, length)) = found else {
            talk.more(what).await?;
            continue;
        };
        talk.came.advance(length);
        return Ok(seen);
    }
}

/// An error, whose first child has its name (RFC 6120 section 4.9.2).
async fn error(talk: &mut Talk<'_, '_>, what: &'static str) -> Result<Failure, Failure> {
    let condition = tag(talk, what).await?;
    Ok(talk.unexpected(format!("the server answers with the error {:?}", condition.name)))
}

/// Something that is XML, and not what may come here.
fn stranger(talk: &Talk<'_, '_>, tag: &Seen, what: &str) -> Failure {
    let sentence = format!("{}: {what} is not XMPP: \"<{}>\"", talk.act, excerpt(tag.text.as_bytes()));
    Failure::target(vantage_contract::v1::Reason::MalformedAnswer, sentence)
}
