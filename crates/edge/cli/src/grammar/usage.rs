//! The usage line of each command.
//!
//! In: the words of a command, `skep service ps`. Out: `skep service ps [OPTIONS] SERVICE [SERVICE...]`. A command that
//! takes no flags of its own has no `[OPTIONS]`, as in docker's help.

/// What follows each command's name. Source: docker/cli 28.2, observed; `play` is skep's own.
const TAILS: [(&str, &str); 82] = [
    ("container attach", "[OPTIONS] CONTAINER"),
    ("container commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]"),
    ("container create", "[OPTIONS] IMAGE [COMMAND] [ARG...]"),
    ("container diff", "CONTAINER"),
    ("container exec", "[OPTIONS] CONTAINER COMMAND [ARG...]"),
    ("container export", "[OPTIONS] CONTAINER"),
    ("container inspect", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ("container kill", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ("container logs", "[OPTIONS] CONTAINER"),
    ("container ls", "[OPTIONS]"),
    ("container pause", "CONTAINER [CONTAINER...]"),
    ("container port", "CONTAINER [PRIVATE_PORT[/PROTO]]"),
    ("container rename", "CONTAINER NEW_NAME"),
    ("container restart", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ("container rm", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ("container run", "[OPTIONS] IMAGE [COMMAND] [ARG...]"),
    ("container start", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ("container stats", "[OPTIONS] [CONTAINER...]"),
    ("container stop", "[OPTIONS] CONTAINER [CONTAINER...]"),
    ("container top", "CONTAINER [ps OPTIONS]"),
    ("container unpause", "CONTAINER [CONTAINER...]"),
    ("container wait", "CONTAINER [CONTAINER...]"),
    ("daemon", "[OPTIONS]"),
    ("events", "[OPTIONS]"),
    ("image build", "[OPTIONS] PATH | URL | -"),
    ("image history", "[OPTIONS] IMAGE"),
    ("image import", "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]"),
    ("image inspect", "[OPTIONS] IMAGE [IMAGE...]"),
    ("image load", "[OPTIONS]"),
    ("image ls", "[OPTIONS] [REPOSITORY[:TAG]]"),
    ("image prune", "[OPTIONS]"),
    ("image pull", "[OPTIONS] NAME[:TAG|@DIGEST]"),
    ("image push", "[OPTIONS] NAME[:TAG]"),
    ("image rm", "[OPTIONS] IMAGE [IMAGE...]"),
    ("image save", "[OPTIONS] IMAGE [IMAGE...]"),
    ("image tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"),
    ("info", "[OPTIONS]"),
    ("inspect", "[OPTIONS] NAME|ID [NAME|ID...]"),
    ("login", "[OPTIONS] [SERVER]"),
    ("logout", "[SERVER]"),
    ("network connect", "[OPTIONS] NETWORK CONTAINER"),
    ("network create", "[OPTIONS] NETWORK"),
    ("network disconnect", "[OPTIONS] NETWORK CONTAINER"),
    ("network inspect", "[OPTIONS] NETWORK [NETWORK...]"),
    ("network ls", "[OPTIONS]"),
    ("network prune", "[OPTIONS]"),
    ("network rm", "NETWORK [NETWORK...]"),
    ("node demote", "NODE [NODE...]"),
    ("node inspect", "[OPTIONS] self|NODE [NODE...]"),
    ("node ls", "[OPTIONS]"),
    ("node promote", "NODE [NODE...]"),
    ("node ps", "[OPTIONS] [NODE...]"),
    ("node rm", "[OPTIONS] NODE [NODE...]"),
    ("node update", "[OPTIONS] NODE"),
    ("play", "[OPTIONS] [COMMAND]"),
    ("play cut", "[OPTIONS] NODE [NODE...]"),
    ("play exec", "[OPTIONS] NODE COMMAND [ARG...]"),
    ("play heal", "[OPTIONS] NODE [NODE...]"),
    ("play kill", "[OPTIONS] NODE [NODE...]"),
    ("play ls", "[OPTIONS]"),
    ("play rm", "[OPTIONS]"),
    ("play start", "[OPTIONS] NODE [NODE...]"),
    ("play stop", "[OPTIONS] NODE [NODE...]"),
    ("search", "[OPTIONS] TERM"),
    ("service create", "[OPTIONS] IMAGE [COMMAND] [ARG...]"),
    ("service inspect", "[OPTIONS] SERVICE [SERVICE...]"),
    ("service logs", "[OPTIONS] SERVICE|TASK"),
    ("service ls", "[OPTIONS]"),
    ("service ps", "[OPTIONS] SERVICE [SERVICE...]"),
    ("service rm", "SERVICE [SERVICE...]"),
    ("service rollback", "[OPTIONS] SERVICE"),
    ("service scale", "SERVICE=REPLICAS [SERVICE=REPLICAS...]"),
    ("service update", "[OPTIONS] SERVICE"),
    ("swarm init", "[OPTIONS]"),
    ("swarm join", "[OPTIONS] HOST:PORT"),
    ("swarm join-token", "[OPTIONS] (worker|manager)"),
    ("swarm leave", "[OPTIONS]"),
    ("swarm unlock", ""),
    ("version", "[OPTIONS]"),
    ("volume create", "[OPTIONS] [VOLUME]"),
    ("volume inspect", "[OPTIONS] VOLUME [VOLUME...]"),
    ("volume rm", "[OPTIONS] VOLUME [VOLUME...]"),
];
const NOUNS: [&str; 8] = ["container", "image", "network", "node", "play", "service", "swarm", "volume"];

/// A list of containers is `ps` at the top, as everybody types it.
pub(super) fn shown_name<'a>(above: &str, name: &'a str) -> &'a str {
    if above == "skep" && name == "ls" { "ps" } else { name }
}

/// The usage line of the command at `path`.
pub(super) fn line(path: &str) -> String {
    let words = path.strip_prefix("skep").unwrap_or(path).trim();
    if words.is_empty() {
        return "skep [OPTIONS] COMMAND [ARG...]".to_owned();
    }
    match tail(words) {
        Some("") => path.to_owned(),
        Some(tail) => format!("{path} {tail}"),
        None if NOUNS.contains(&words) => format!("{path} COMMAND"),
        None => format!("{path} [OPTIONS]"),
    }
}

fn tail(words: &str) -> Option<&'static str> {
    let long = match words {
        "ps" | "container ps" | "container list" => "container ls".to_owned(),
        "images" | "image list" => "image ls".to_owned(),
        "rmi" => "image rm".to_owned(),
        other => other.to_owned(),
    };
    let exact = |key: &str| TAILS.iter().find(|(words, _)| *words == key).map(|(_, tail)| *tail);
    exact(&long).or_else(|| exact(&format!("container {long}"))).or_else(|| exact(&format!("image {long}")))
}

/// The longest beginning of `words` that is a command.
pub(super) fn known(words: &[String]) -> String {
    let mut path = "skep".to_owned();
    let Some(first) = words.first() else { return path };
    path.push_str(&format!(" {first}"));
    if let (true, Some(second)) = (NOUNS.contains(&first.as_str()), words.get(1)) {
        path.push_str(&format!(" {second}"));
    }
    path
}
