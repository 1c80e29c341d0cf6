//! The query of `/api/results`, read strictly: what is not understood is refused, not ignored.

use crate::store::Query;

/// The results shown where no limit is given.
const DEFAULT_LIMIT: usize = 100;
/// The most results in one answer.
const MOST: usize = 1000;

/// Reads `check`, `monitor` and `limit` (1 to 1000, default 100). The error is a sentence.
pub(super) fn read(text: &str) -> Result<Query, String> {
    let mut query = Query { limit: DEFAULT_LIMIT, ..Query::default() };
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        match &*name {
            "check" => query.check = Some(value.into_owned()),
            "monitor" => query.monitor = Some(value.into_owned()),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                query.limit = limit.ok_or_else(|| format!("limit: must be 1 to {MOST}, is {value:?}"))?;
            }
            _ => return Err(format!("unknown parameter {name:?}, expected \"check\", \"monitor\" or \"limit\"")),
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_query_is_read_with_its_escapes_and_its_default() {
        let query = read("check=a%20%26+b&monitor=m&limit=7").unwrap();
        assert_eq!((query.check.as_deref(), query.monitor.as_deref(), query.limit), (Some("a & b"), Some("m"), 7));
        assert_eq!(read("").unwrap().limit, 100);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        assert_eq!(read("limit=0").unwrap_err(), "limit: must be 1 to 1000, is \"0\"");
        assert!(read("limit=x").is_err() && read("limit=1001").is_err());
        assert!(read("chekc=a").unwrap_err().starts_with("unknown parameter \"chekc\""));
    }
}
