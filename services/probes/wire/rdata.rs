//! Names and presentation forms of DNS: rcodes, types, classes and the data of records (RFC 1035 section 5.1, RFC 3597).

/// Rcodes by number (IANA, RFC 6895).
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (19, "BADMODE"),
    (20, "BADNAME"),
    (21, "BADALG"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
];

/// The name of an rcode: "NXDOMAIN", or "RCODE12" where it has none.
pub(crate) fn rcode_name(number: u16) -> String {
    name_of(RCODES, number, "RCODE")
}

fn name_of(table: &[(u16, &str)], number: u16, prefix: &str) -> String {
    table.iter().find(|(known, _)| *known == number).map_or_else(|| format!("{prefix}{number}"), |(_, name)| (*name).to_owned())
}
