//! From what a file says of a PostgreSQL server to what it means. A password is never shown: not in a complaint, and not
//! by what holds it. No connection is made, and no file is opened.

use std::fmt;
use std::path::PathBuf;

use super::file::{self, Tls};
use super::resolve::{Resolver, control_characters};
use super::{Complaint, PostgresSink};

/// Where a database is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresServer {
    /// A name, an address, or a directory with a socket, which begins with `/`.
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<Secret>,
    /// A file that holds the password instead.
    pub password_file: Option<PathBuf>,
    pub tls: Tls,
    pub ca_file: Option<PathBuf>,
}

/// What nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

const PORT: u16 = 5432;

impl Resolver<'_> {
    pub(super) fn postgres_sink(&mut self, name: &str, sink: file::PostgresSink) -> Option<PostgresSink> {
        let server = self.server(name, &sink);
        if let Some(complaint) = control_characters(&sink.schema) {
            self.complain(&["sinks", name, "postgres", "schema"], complaint);
        }
        let tables = self.tables(name, "postgres", sink.targets);
        Some(PostgresSink {
            server: server?,
            schema: sink.schema,
            create: sink.create,
            commit: sink.commit,
            provenance: sink.provenance,
            tables,
        })
    }

    fn server(&mut self, name: &str, sink: &file::PostgresSink) -> Option<PostgresServer> {
        let place = ["sinks", name, "postgres"];
        let at = |key| [&place[..], &[key]].concat();
        let password = sink.password_env.as_ref().and_then(|variable| {
            let value = (self.env)(variable);
            if value.is_none() {
                let message = format!("the environment variable `{variable}` is not set");
                self.report(&at("password_env"), message, None);
            }
            value.map(Secret)
        });
        if sink.password_env.is_some() && sink.password_file.is_some() {
            let message = format!("[sinks.{name}.postgres] has both `password_env` and `password_file`");
            self.report(&at("password_file"), message, None);
        }
        let url = match &sink.url {
            None => Url::default(),
            Some(written) => {
                let apart = [("host", sink.host.is_some()), ("port", sink.port.is_some())];
                let apart = apart
                    .into_iter()
                    .chain([("database", sink.database.is_some()), ("user", sink.user.is_some())]);
                for (key, _) in apart.filter(|(_, there)| *there) {
                    let message = format!("[sinks.{name}.postgres] has both `url` and `{key}`");
                    self.report(&at(key), message, Some("say all of it in one of the two ways".to_owned()));
                }
                if Url::parse(written).is_ok_and(|url| url.password.is_some() && !written.contains("${")) {
                    let message = "a password stands in the file, where everybody reads it".to_owned();
                    let help = "name the variable that holds it by `password_env`, or its file by `password_file`; or let a variable hold the whole URL: \"${DATABASE_URL}\"";
                    self.report(&place, message, Some(help.to_owned()));
                }
                let so_far = self.found.len();
                let expanded = self.expand(&at("url"), written);
                if self.found.len() > so_far {
                    return None;
                }
                // Not where it stands: that would show the line.
                Url::parse(&expanded).map_err(|complaint| self.complain(&place, complaint)).ok()?
            }
        };
        let text = |resolver: &mut Self, key, written: &Option<String>| {
            written.as_ref().map(|text| resolver.expand(&at(key), text))
        };
        let host = text(self, "host", &sink.host).or(url.host);
        let database = text(self, "database", &sink.database).or(url.database);
        let user = text(self, "user", &sink.user).or(url.user);
        let (Some(host), Some(database), Some(user)) = (&host, &database, &user) else {
            let absent =
                [("host", host.is_none()), ("database", database.is_none()), ("user", user.is_none())];
            let absent: Vec<_> = absent.iter().filter(|(_, absent)| *absent).map(|(key, _)| *key).collect();
            let message = format!("[sinks.{name}.postgres] does not say `{}`", absent.join("`, `"));
            let help = "such as `url = \"postgres://user@host:5432/database\"`".to_owned();
            self.report(&place, message, Some(help));
            return None;
        };
        let near = is_near(host);
        Some(PostgresServer {
            port: sink.port.map_or(url.port.unwrap_or(PORT), u16::from),
            password: password.or(url.password),
            password_file: sink.password_file.as_ref().map(|file| {
                let file = self.expand(&at("password_file"), file);
                self.base.join(file)
            }),
            tls: sink.tls.or(url.tls).unwrap_or(if near { Tls::Disable } else { Tls::VerifyFull }),
            ca_file: sink
                .ca_file
                .as_ref()
                .map(|file| self.expand(&at("ca_file"), file))
                .map(|f| self.base.join(f)),
            host: host.clone(),
            database: database.clone(),
            user: user.clone(),
        })
    }
}

/// Whether what is said to the host stays on this machine.
fn is_near(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host.starts_with('/') || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// `postgres://user:password@host:port/database?sslmode=verify-full`, each part of which may be left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Url {
    host: Option<String>,
    port: Option<u16>,
    database: Option<String>,
    user: Option<String>,
    password: Option<Secret>,
    tls: Option<Tls>,
}

impl Url {
    /// The URL may hold a password, so no complaint shows anything of it.
    fn parse(text: &str) -> Result<Self, Complaint> {
        let wrong = |what: &str| {
            Complaint::new(what, "such as \"postgres://user@host:5432/database?sslmode=verify-full\"")
        };
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("not a URL that a postgres sink knows"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match user.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (user, None),
        };
        let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => match host.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, Some("")),
            },
        };
        let port = match port {
            Some("") => None,
            Some(port) => {
                Some(port.parse().map_err(|_| wrong("the port in the URL is not a number up to 65535"))?)
            }
            None => return Err(wrong("what stands behind the address in the URL is no port")),
        };
        let decoded =
            |text: &str| decode(text).ok_or_else(|| wrong("a % in the URL is not followed by a byte"));
        let some = |text: &str| decoded(text).map(|text| Some(text).filter(|text| !text.is_empty()));
        let mut url = Self {
            host: some(host)?,
            port,
            database: some(database)?,
            user: some(user)?,
            password: password.map(decoded).transpose()?.map(Secret),
            tls: None,
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            url.tls = Some(match parameter {
                "sslmode=disable" => Tls::Disable,
                "sslmode=require" => Tls::Require,
                "sslmode=verify-ca" => Tls::VerifyCa,
                "sslmode=verify-full" => Tls::VerifyFull,
                _ => {
                    let help = "known in a URL: `sslmode` with `disable`, `require`, `verify-ca` or `verify-full`; `ca_file` is a key of its own";
                    return Err(Complaint::new("the URL has a parameter that is not known here", help));
                }
            });
        }
        Ok(url)
    }
}

/// Text with `%20` and the like.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(after.get(..2).filter(|hex| !hex.starts_with('+'))?, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// The server of a URL, for tests that are told one.
#[cfg(all(test, feature = "servers"))]
pub(crate) fn server_at(url: &str) -> PostgresServer {
    let Url { host, port, database, user, password, tls } = Url::parse(url).expect("a URL");
    PostgresServer {
        host: host.expect("a host"),
        port: port.unwrap_or(PORT),
        database: database.expect("a database"),
        user: user.expect("a user"),
        password,
        password_file: None,
        tls: tls.unwrap_or(Tls::Disable),
        ca_file: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_who_asks_whom_for_what() {
        let url = Url::parse("postgresql://ann%40x:p%3Aw@[::1]:6543/a%20b?sslmode=verify-ca").unwrap();
        let some = |text: &str| Some(text.to_owned());
        let expected = Url {
            host: some("::1"),
            port: Some(6543),
            database: some("a b"),
            user: some("ann@x"),
            password: some("p:w").map(Secret),
            tls: Some(Tls::VerifyCa),
        };
        assert_eq!(url, expected);
        assert_eq!(Url::parse("postgres://").unwrap(), Url::default());
        assert_eq!(Url::parse("postgres://%2Frun%2Fpg/x").unwrap().host, some("/run/pg"));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told_without_it() {
        for url in [
            "mysql://ann:secret@host/db",
            "postgres://ann:secret@host:port/db",
            "postgres://ann:secret@host/db?sslmode=prefer",
            "postgres://ann:secret@host/db?pgbouncer=true",
            "postgres://ann:secret%@host/db",
            "postgres://ann:secret%+1@host/db",
            "postgres://ann:secret@[::1]5432/db",
        ] {
            let complaint = Url::parse(url).unwrap_err();
            let said = format!("{complaint:?}");
            assert!(!said.contains("secret") && !said.contains("ann"), "{said}");
        }
    }

    #[test]
    fn only_this_machine_is_near() {
        assert!(["localhost", "127.0.0.2", "::1", "/run/postgresql"].iter().all(|host| is_near(host)));
        assert!(!["db", "10.0.0.1", "localhost.example.com", ""].iter().any(|host| is_near(host)));
    }
}
