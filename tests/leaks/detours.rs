//! Ways round: by names, redirects, resolvers, servers that others name.

use serde_json::{Value, json};

use super::{Attempts, INSIDE, METADATA, Places};

pub(super) fn all(places: &Places) -> Attempts {
    let mut attempts = Attempts::new();
    by_name(places, &mut attempts);
    by_redirect(places, &mut attempts);
    by_server(places, &mut attempts);
    by_proxy(places, &mut attempts);
    by_amount(&mut attempts);
    attempts
}

/// Proxies, and what they are asked for; token endpoints; HTTP/3.
fn by_proxy(places: &Places, attempts: &mut Attempts) {
    let dns = places.dns.to_string();
    let mut add = |name: String, check| attempts.push((name, check));
    for (number, proxy) in [
        "http://169.254.169.254:3128",
        "http://0xa9fea9fe:3128",
        "http://[64:ff9b::a9fe:a9fe]:3128",
        "socks5://10.66.0.1:1080",
        "socks5://169.254.169.254",
        "http://metadata.lab.test:3128",
        "socks5://chain.lab.test:1080",
        "http://www.denied.test:3128",
    ]
    .into_iter()
    .enumerate()
    {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://198.51.100.9/");
            add(format!("proxy {scheme} {number}"), json!({ scheme: { "url": url, "proxy": { "url": proxy } }, "resolver": dns }));
        }
    }
    let own = format!("http://127.0.0.1:{}", places.grpc);
    add("proxy own".to_owned(), json!({ "http": { "url": "http://198.51.100.9/", "proxy": { "url": own } } }));
    // Through a proxy that is allowed, to what is not.
    let web = places.web;
    for (number, host) in
        [METADATA, INSIDE, "0xa9fea9fe", "[64:ff9b::a9fe:a9fe]", "metadata.lab.test", "www.denied.test"].into_iter().enumerate()
    {
        for (scheme, proxy) in [("http", "http"), ("https", "http"), ("http", "socks5"), ("https", "socks5")] {
            let proxy = format!("{proxy}://{web}");
            let url = format!("{scheme}://{host}/");
            add(
                format!("through {number} {scheme} {}", proxy.split(':').next().unwrap()),
                json!({ scheme: { "url": url, "proxy": { "url": proxy } }, "resolver": dns }),
            );
        }
    }
    let named = json!({ "url": format!("http://{web}"), "remote_names": true });
    add("names at a proxy".to_owned(), json!({ "http": { "url": "http://metadata.lab.test/", "proxy": named }, "resolver": dns }));
    for (number, endpoint) in
        ["http://169.254.169.254/token", "http://0xa9fea9fe/token", "http://inside.lab.test/token", "https://www.denied.test/token"]
            .into_iter()
            .enumerate()
    {
        let auth = json!({ "oauth2": { "token_url": endpoint, "client_id": "x", "client_secret": { "value": "y" } } });
        add(format!("token {number}"), json!({ "http": { "url": format!("http://{web}/"), "auth": auth }, "resolver": dns }));
    }
    for (number, host) in [METADATA, INSIDE, "[64:ff9b::a9fe:a9fe]", "metadata.lab.test", "www.denied.test"].into_iter().enumerate() {
        let check = json!({ "https": { "url": format!("https://{host}/"), "version": "3" }, "resolver": dns });
        add(format!("http/3 {number}"), check);
    }
}

fn by_name(places: &Places, attempts: &mut Attempts) {
    let dns = places.dns.to_string();
    let kinds = |host: &str| -> Vec<(&'static str, Value)> {
        vec![
            ("tcp", json!({ "tcp": { "host": host, "port": 80 } })),
            ("ping", json!({ "ping": { "host": host, "count": 1 } })),
            ("udp", json!({ "udp": { "host": host, "port": 9 } })),
            ("ntp", json!({ "ntp": { "server": host } })),
            ("traceroute", json!({ "traceroute": { "host": host, "method": "udp", "max_hops": 2 } })),
            ("http", json!({ "http": { "url": format!("http://{host}/") } })),
            ("https", json!({ "https": { "url": format!("https://{host}/") } })),
            ("dns", json!({ "dns": { "server": host, "query": "www.test" } })),
        ]
    };
    for host in [
        "metadata.lab.test",
        "inside.lab.test",
        "chain.lab.test",
        "to-denied.lab.test",
        "translated.lab.test",
        "mapped.lab.test",
        "six.lab.test",
        "many.lab.test",
        // Nobody is asked for these.
        "denied.test",
        "www.denied.test",
        "WWW.Denied.TEST.",
        "\u{ff44}enied.test",
    ] {
        for (kind, mut check) in kinds(host) {
            check["resolver"] = json!(dns);
            attempts.push((format!("{kind} {host}"), check));
        }
        for addresses in ["all", "happy_eyeballs"] {
            let check = json!({ "tcp": { "host": host, "port": 80 }, "addresses": addresses, "resolver": dns });
            attempts.push((format!("{addresses} {host}"), check));
        }
    }
    // Without a resolver of its own: nobody is asked here either. (There is nobody: the packets would be seen.)
    attempts.push(("system".to_owned(), json!({ "tcp": { "host": "www.denied.test", "port": 80 } })));
    // Harmless at the first look: it is asked again for the redirect.
    let again = places.redirect(302, &format!("http://rebind.lab.test:{}/again", places.web.port()));
    let path = again.rsplit_once('/').unwrap().1;
    let url = format!("http://rebind.lab.test:{}/{path}", places.web.port());
    attempts.push(("rebind".to_owned(), json!({ "http": { "url": url }, "resolver": dns })));
}

fn by_redirect(places: &Places, attempts: &mut Attempts) {
    let mut add = |name: String, status, location: &str| {
        let url = places.redirect(status, location);
        attempts.push((name, json!({ "http": { "url": url }, "resolver": places.dns.to_string() })));
    };
    for status in [301, 302, 303, 307, 308] {
        for host in [METADATA, "[64:ff9b::a9fe:a9fe]", INSIDE] {
            add(format!("redirect {status} {host}"), status, &format!("http://{host}/latest/meta-data/"));
        }
    }
    for location in [
        "//169.254.169.254/",
        "http:\\\\169.254.169.254\\",
        "HTTP://169.254.169.254/",
        "https://169.254.169.254/",
        "http://allowed.example@169.254.169.254/",
        "http://198.51.100.7:80@169.254.169.254/",
        "http://169.254.169.254:8080/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.169.254./",
        "http://169.254.43518/",
        "http://%31%36%39.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[::169.254.169.254]/",
        "http://[2001:db8:66::1]/",
        "http://0/",
        "http://metadata.lab.test/",
        "http://chain.lab.test/",
        "http://to-denied.lab.test/",
        "http://translated.lab.test/",
        "http://www.denied.test/",
        "http://www.denied.test./",
        "http://%77ww.denied.test/",
    ] {
        add(format!("location {location}"), 302, location);
    }
    for (name, port) in [("grpc", places.grpc), ("http", places.http)] {
        add(format!("location own {name}"), 302, &format!("http://127.0.0.1:{port}/"));
        add(format!("location own {name} at localhost"), 302, &format!("http://localhost:{port}/"));
    }
    // One redirect to another, and that to what is denied.
    let inner = places.redirect(307, "http://169.254.169.254/");
    add("location twice".to_owned(), 302, &inner);
}

fn by_server(places: &Places, attempts: &mut Attempts) {
    let dns = places.dns;
    let mut add = |name: &str, check| attempts.push((name.to_owned(), check));
    for (number, resolver) in
        [METADATA, "169.254.169.254:5353", "10.66.0.53", "[64:ff9b::a9fe:a9fe]:53", "::ffff:10.66.0.53", "fe80::1"].into_iter().enumerate()
    {
        let tcp = json!({ "tcp": { "host": "www.lab.test", "port": 80 }, "resolver": resolver });
        add(&format!("resolver {number}"), tcp);
        let all = json!({ "http": { "url": "http://www.lab.test/" }, "resolver": resolver });
        add(&format!("resolver of http {number}"), all);
        let path = json!({ "traceroute": { "host": "10.9.0.2", "method": "udp", "hop_names": true, "max_hops": 2 }, "resolver": resolver });
        add(&format!("resolver of hops {number}"), path);
    }
    // A DNS check may ask for no denied name, and a zone's servers are targets.
    let ask = |query: &str| json!({ "server": dns.ip().to_string(), "port": dns.port(), "query": query });
    add("query", json!({ "dns": ask("www.denied.test") }));
    add("query in capitals", json!({ "dns": ask("WWW.DENIED.TEST.") }));
    for zone in ["zone.lab.test", "named.lab.test"] {
        let mut check = ask(zone);
        check["zone_consistency"] = json!(true);
        add(&format!("zone {zone}"), json!({ "dns": check }));
    }
}

fn by_amount(attempts: &mut Attempts) {
    let mut add = |name: &str, check| attempts.push((name.to_owned(), check));
    add("too many requests", json!({ "ping": { "host": "198.51.100.9", "count": 101, "spacing": "1ms" } }));
    add("too much payload", json!({ "ping": { "host": "198.51.100.9", "count": 1, "payload_size_bytes": 1473 } }));
    add("too many hops", json!({ "traceroute": { "host": "198.51.100.9", "max_hops": 31 } }));
    add("port", json!({ "tcp": { "host": "198.51.100.9", "port": 6666 } }));
    add("port of udp", json!({ "udp": { "host": "198.51.100.9", "port": 6666 } }));
    add("port of a path", json!({ "traceroute": { "host": "198.51.100.9", "method": "tcp", "port": 6666 } }));
    add("method", json!({ "http": { "url": "http://198.51.100.9/", "method": "DELETE" } }));
}
