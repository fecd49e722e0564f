//! What can be measured: the trait every subject stands behind, and the direct line to the origin.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Pid;
use schemars::JsonSchema;
use serde::Serialize;
use thiserror::Error;

use crate::audience::Audience;
use crate::check::ask;
use crate::fault::{Fault, Kept};
use crate::forms::Form;
use crate::load::{Ask, Place, Target, Tls};
use crate::origin::{ECHO, READY_WORD};
use crate::process::{Guarded, Launch};
use crate::program::{Identity, Programs};
use crate::question::{Question, Request};
use crate::scenario::Scenario;
use crate::transport::{Papers, Transport};
use crate::url::Trust;
use crate::vault::Desk;
use crate::voice::{Expects, Voice};
use crate::work::Work;

/// Path asked of every subject.
pub(crate) const PATH: &str = "/bench/item";
const START_LIMIT: Duration = Duration::from_secs(10);

/// Where a subject is started.
#[derive(Debug, Clone)]
pub(crate) struct Site<'a> {
    /// What a proxy forwards to; without meaning to the origin itself.
    pub origin: SocketAddr,
    /// Another one, where there are two.
    pub spare: Option<SocketAddr>,
    /// Body the origin answers.
    pub body_bytes: u32,
    /// A directory of this subject's own, empty.
    pub dir: PathBuf,
    pub cores: Option<Cores>,
    /// Claims-bearing tokens and keys for peers that verify them.
    pub tokens: &'a crate::tokens::Tokens,
    /// Where programs are looked for.
    pub programs: &'a Programs,
    /// How it is to be spoken to.
    pub transport: Transport,
    /// Certificates for that; nothing in the clear.
    pub papers: Option<&'a Papers>,
}

impl Site<'_> {
    /// Whom the generator trusts there, under TLS.
    pub(crate) fn trust(&self) -> Option<Trust> {
        self.papers.map(Papers::trust)
    }

    /// Where a subject at `address` is asked over HTTP/1.1.
    pub(crate) fn place(&self, address: SocketAddr) -> anyhow::Result<Place> {
        place(address, self.trust().as_ref(), false)
    }
}

fn place(address: SocketAddr, trust: Option<&Trust>, http2: bool) -> anyhow::Result<Place> {
    let tls = match trust {
        Some(trust) => Some(Tls { config: trust.config(http2)?, name: address.ip().into() }),
        None => None,
    };
    Ok(Place { address, tls })
}

/// Which core does what.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct Cores {
    pub proxy: usize,
    pub load: usize,
}

/// A subject that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub identity: Identity,
    pub address: SocketAddr,
    /// Sent as `Authorization` when the subject asks for one.
    pub authorization: Option<String>,
    /// The same of others, who ask in turn with it.
    pub others: Vec<String>,
    /// A valid credential without the permission, where the bench can make one.
    pub powerless: Option<String>,
    /// Root of the process tree whose CPU time counts; nothing where it is not ours to account.
    pub cpu_root: Option<u32>,
    /// How it is spoken to.
    pub voice: Voice,
    /// What an acknowledgement must say that an event has; nothing where it says nothing.
    pub promises: &'static str,
    /// The vault, where it is one or has one beside it.
    pub desk: Option<Desk>,
    /// Whom the generator trusts under TLS; nothing where it is asked in the clear.
    pub trust: Option<Trust>,
    /// What is asked of it, where the scenario's work does not say.
    pub aim: Option<Target>,
    /// It is the origin, with nothing before it.
    pub is_origin: bool,
    /// Nothing where the bench did not start it.
    pub child: Option<Guarded>,
    /// A server that it needs; ends with it.
    pub beside: Option<Guarded>,
    /// Who is told to reload.
    pub reload: Option<Pid>,
    /// How bars are sent to it.
    pub form: Option<Form>,
    /// Where Sluice's services lie.
    pub services: Option<PathBuf>,
    /// The second origin behind it.
    pub spare: Option<Rc<Kept>>,
    /// The store behind it.
    pub store: Option<Rc<Kept>>,
}

/// Why a subject is not measured.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// Its program is not on this machine: reported, and the run goes on.
    #[error("{0}")]
    Missing(String),
    /// It is there and does not work: the run fails.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The future of a start.
pub(crate) type Starting<'a> = Pin<Box<dyn Future<Output = Result<Running, StartError>> + 'a>>;

/// One thing to measure.
pub(crate) trait Subject {
    /// Unique name, as tables and thresholds use it.
    fn name(&self) -> &str;

    /// The program it is made of.
    fn program(&self) -> &str;

    /// What it does to a request, in words.
    fn policies(&self) -> &str;

    /// It sets a request id and passes it on.
    fn sets_request_id(&self) -> bool;

    /// It executes a keyed request once; a key that comes again with another body is refused with 422.
    fn keeps_keys(&self) -> bool {
        false
    }

    /// Starts it and waits until it listens.
    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a>;
}

impl Running {
    /// One that speaks HTTP and asks for no credential; `cpu_root` is the root of what it does.
    pub(crate) fn new(identity: Identity, address: SocketAddr, cpu_root: u32, child: Guarded) -> Self {
        Self { child: Some(child), cpu_root: Some(cpu_root), ..Self::elsewhere(identity, address) }
    }

    /// The same, started by somebody else.
    pub(crate) fn elsewhere(identity: Identity, address: SocketAddr) -> Self {
        Self {
            identity,
            address,
            authorization: None,
            others: Vec::new(),
            powerless: None,
            cpu_root: None,
            voice: Voice::Http,
            promises: "",
            desk: None,
            trust: None,
            aim: None,
            is_origin: false,
            child: None,
            beside: None,
            reload: None,
            form: None,
            services: None,
            spare: None,
            store: None,
        }
    }

    /// The request that `question` means here, with these `credentials`.
    pub(crate) fn request(&self, question: Question, path: &str, credentials: Option<&str>) -> Request {
        question.request(&self.address.to_string(), path, credentials)
    }

    /// Where it is asked over HTTP/1.1.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        place(self.address, self.trust.as_ref(), false)
    }

    /// What the generator is to do, and what is done meanwhile.
    pub(crate) fn target(&self, scenario: &Scenario) -> anyhow::Result<Target> {
        if let Some(aim) = &self.aim {
            return Ok(aim.clone());
        }
        // Of the line to the origin itself nothing can break.
        let faults = if self.is_origin { &[][..] } else { &scenario.faults };
        Ok(Target { script: Fault::script(faults, self)?, ..self.asked(scenario)? })
    }

    fn asked(&self, scenario: &Scenario) -> anyhow::Result<Target> {
        let streams = if self.trust.is_some() { scenario.transport.streams() } else { None };
        let place = place(self.address, self.trust.as_ref(), streams.is_some())?;
        let credentials = self.authorization.as_deref();
        let (host, bytes) = (self.address.to_string(), scenario.body_bytes as usize);
        let (batch, subscribers) = match scenario.work {
            Work::Forward => {
                let ask = |credentials: Option<&str>| {
                    let request = self.request(scenario.request, PATH, credentials);
                    Ask { request, expects: Expects::Body(bytes), status: None }
                };
                let others = self.others.iter().map(|credentials| ask(Some(credentials)));
                let asks = [ask(credentials)].into_iter().chain(others).collect();
                return Ok(Target { streams, ..Target::of_all(place, asks) });
            }
            Work::Vault { op } => {
                let desk = self.desk.as_ref().expect("subjects of such work are vaults");
                let (request, expects) = (desk.request(op, bytes), desk.expects(op));
                return Ok(Target::of(place, request, expects));
            }
            Work::Calculate { bars } => {
                let form = self.form.context("no calculations")?;
                let (request, expects) = form.request(&host, credentials.unwrap_or_default(), bars)?;
                return Ok(Target::of(place, request, expects));
            }
            Work::Revoke
            | Work::Unseal { .. }
            | Work::Replay { .. }
            | Work::Restart { .. }
            | Work::Reload => {
                unreachable!("trials have no target")
            }
            Work::Publish { batch } => (batch, None),
            Work::Fanout { batch, subscribers } => (batch, Some(subscribers)),
        };
        let shown = subscribers.is_some();
        let (request, expects) = self.voice.publish(&host, credentials, batch, bytes, shown);
        let steps = self.voice.listen(&host, credentials)?;
        Ok(Target {
            greeting: self.voice.greeting(),
            audience: subscribers.map(|subscribers| Audience { subscribers, batch, place: None, steps }),
            ..Target::of(place, Request::with_places(request), expects)
        })
    }
}

/// The origin itself, without a proxy: what the proxies' latency is compared with.
#[derive(Debug)]
pub(crate) struct Direct;

impl Subject for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn program(&self) -> &'static str {
        "sluice-bench"
    }

    fn policies(&self) -> &'static str {
        "no proxy: the origin itself, on the generator's core"
    }

    fn sets_request_id(&self) -> bool {
        false
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move { Ok(start_origin(site).await?) })
    }
}

/// Starts an origin process on the load core.
pub(crate) async fn start_origin(site: &Site<'_>) -> anyhow::Result<Running> {
    let program = std::env::current_exe()?;
    let identity = Identity::ask(&program, "--version", "this bench".into())?;
    let (address, child) = origin_at(&program, site, (Ipv4Addr::LOCALHOST, 0).into()).await?;
    let pid = child.pid();
    Ok(Running { is_origin: true, ..Running::new(identity, address, pid, child) })
}

/// Another origin, which can be killed and started again.
pub(crate) async fn spare_origin(site: &Site<'_>) -> anyhow::Result<Rc<Kept>> {
    let program = std::env::current_exe()?;
    let (address, child) = origin_at(&program, site, (Ipv4Addr::LOCALHOST, 0).into()).await?;
    let (bytes, core, dir) = (site.body_bytes, site.cores.map(|cores| cores.load), site.dir.clone());
    Ok(Kept::new(address, child, move || origin_process(&program, bytes, core, &dir, address)))
}

async fn origin_at(
    program: &Path,
    site: &Site<'_>,
    listen: SocketAddr,
) -> anyhow::Result<(SocketAddr, Guarded)> {
    let core = site.cores.map(|cores| cores.load);
    let mut child = origin_process(program, site.body_bytes, core, &site.dir, listen)?;
    let line = child.first_line(START_LIMIT).await?;
    Ok((line.strip_prefix(READY_WORD).unwrap_or(&line).trim().parse()?, child))
}

fn origin_process(
    program: &Path,
    bytes: u32,
    core: Option<usize>,
    dir: &Path,
    listen: SocketAddr,
) -> anyhow::Result<Guarded> {
    let words = ["origin", "--bytes", &bytes.to_string(), "--listen", &listen.to_string()];
    let arguments = words.map(Into::into).to_vec();
    Launch { program, arguments, core, dir, environment: Vec::new() }.start()
}

/// Waits until `address` answers a GET: some listen before they know their routes or their origin.
pub(crate) async fn wait_answering(child: &mut Guarded, place: &Place) -> anyhow::Result<()> {
    let request = Question::default().request(&place.address.to_string(), PATH, None).fresh().to_vec();
    let settled = || ask(place, &request).ok().filter(|answer| ![404, 503].contains(&answer.status));
    child.until("an answer on its port", START_LIMIT, settled).await?;
    Ok(())
}

/// A loopback address nobody listens on just now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Fills `{{name}}` places of a configuration template; every place must have a value.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut filled = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) =
            after.split_once("}}").ok_or_else(|| anyhow::anyhow!("template: `{{{{` without end"))?;
        let value = values.iter().find(|(known, _)| *known == name);
        let (_, value) = value.ok_or_else(|| anyhow::anyhow!("template: no value for `{name}`"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// A path as text for a configuration file.
pub(crate) fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .filter(|text| !text.contains(['"', ' ', '\n']))
        .ok_or_else(|| anyhow::anyhow!("{} cannot be written into a configuration file", path.display()))
}

/// The path that answers the request head the origin received.
pub(crate) fn echo_path() -> String {
    format!("/bench{ECHO}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_once_and_whole() {
        let values = [("a", "1"), ("b", "{{a}}")];
        assert_eq!(fill("x {{a}} y {{b}}{{a}} { }}", &values).unwrap(), "x 1 y {{a}}1 { }}");
        assert!(fill("{{c}}", &values).unwrap_err().to_string().contains("`c`"));
        assert!(fill("{{a", &values).is_err());
    }

    #[test]
    fn free_addresses_are_loopback() {
        assert!(free_address().unwrap().ip().is_loopback());
        assert!(path_text(Path::new("/a b")).is_err());
    }
}
