//! Answers what other managers' logs ask of this one.
//!
//! In: messages. Out: answers, or that the caller is not talked to. Never calls anybody, but for the question whether the
//! leader's process is gone, which is answered by looking.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::storage::SnapshotMeta;
use openraft::type_config::alias::SnapshotOf;
use openraft::type_config::async_runtime::watch::WatchReceiver;

use crate::command::{LogId, StoredMembership, TypeConfig, Vote};
use crate::consensus::Consensus;
use crate::encoding::{Position, StoredVote};
use crate::error::AnswerError;
use crate::messages::{self, Candidacy, Envelope, Probe, ProbeAnswer, SnapshotAnswer, SnapshotHead};
use crate::runtime::{self, Instant};
use crate::snapshot::SnapshotBody;
use crate::timing;
use crate::transport::{Call, SnapshotStream};

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AnswerError {
    AnswerError::Malformed(error.into())
}

fn stopped(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AnswerError {
    AnswerError::Stopped(error.into())
}

impl Consensus {
    /// Answers a call of another manager's log. The caller of this has checked that it is a manager of this swarm.
    pub async fn answer(&self, call: Call, body: Bytes) -> Result<Bytes, AnswerError> {
        let (back, content) = self.read_envelope(&body)?;
        match call {
            Call::Append | Call::Beat => self.answer_append(back, content, call == Call::Beat).await,
            Call::Vote => self.answer_vote(back, content).await,
            Call::PreVote => {
                let candidacy: Candidacy = messages::read(content).map_err(malformed)?;
                let answer = self.raft.pre_vote(candidacy.into_request()).await.map_err(stopped)?;
                messages::vote_answer(back, &answer).map_err(malformed)
            }
            Call::Transfer => {
                let request = messages::read_transfer(content).map_err(malformed)?;
                let answer = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
                messages::transfer_answer(back, answer.is_ok()).map_err(malformed)
            }
            Call::Probe => {
                let probe: Probe = messages::read(content).map_err(malformed)?;
                back.seal(&self.answer_probe(probe).await).map_err(malformed)
            }
        }
    }

    /// Checks that a message is for this log; gives the head of the answer.
    fn read_envelope<'m>(&self, message: &'m [u8]) -> Result<(Envelope, &'m [u8]), AnswerError> {
        let (envelope, content) = Envelope::read(message).map_err(malformed)?;
        let Envelope { epoch, from, to } = envelope;
        if epoch != self.link.epoch {
            return Err(AnswerError::Epoch { theirs: epoch, ours: self.link.epoch });
        }
        if to != self.link.this {
            return Err(AnswerError::OtherMember { wanted: to, this: self.link.this });
        }
        self.link.hear(from);
        Ok((self.link.envelope(from), content))
    }

    async fn answer_append(
        &self,
        back: Envelope,
        content: &[u8],
        is_beat: bool,
    ) -> Result<Bytes, AnswerError> {
        let request = messages::read_append(content).map_err(malformed)?;
        self.hear_leader(&request.vote);
        let answer = if is_beat {
            self.answer_beat(request).await?
        } else {
            Some(self.raft.append_entries(request).await.map_err(stopped)?)
        };
        let sealed = match answer {
            Some(answer) => messages::append_answer(back, &answer),
            None => messages::waiting_answer(back),
        };
        sealed.map_err(malformed)
    }

    /// Entries that came before may still be on their way to a slow disk, which says nothing about this manager being
    /// there: `None` then. openraft has the heartbeat in its queue, but has promised nothing yet.
    async fn answer_beat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<Option<AppendEntriesResponse<TypeConfig>>, AnswerError> {
        let (vote, raft) = (request.vote, self.raft.clone());
        // It is not to be dropped half-way.
        let mut appending = Box::pin(async move { raft.append_entries(request).await });
        match runtime::timeout(timing::BEAT_ANSWER, &mut appending).await {
            Ok(answer) => answer.map(Some).map_err(stopped),
            Err(_) if self.view.follows(StoredVote::of(&vote)) => {
                // Its end shows in the log.
                drop(runtime::spawn(appending));
                Ok(None)
            }
            Err(_) => appending.await.map(Some).map_err(stopped),
        }
    }

    /// Notes that a leader speaks to this manager, if it is not one of the past.
    fn hear_leader(&self, leader: &Vote) {
        if leader.committed && *leader >= self.view.server.borrow_watched().vote {
            self.link.hear_leader(StoredVote::of(leader));
        }
    }

    async fn answer_vote(&self, back: Envelope, content: &[u8]) -> Result<Bytes, AnswerError> {
        let candidacy: Candidacy = messages::read(content).map_err(malformed)?;
        // A candidate that a leader has chosen needs no vote that was promised to somebody else.
        if !candidacy.transfer {
            runtime::sleep_until(self.link.mute_until()).await;
        }
        let gone = candidacy.gone;
        let mut request = candidacy.into_request();
        if let Some(leader) = gone
            && self.link.gone() == Some(leader)
            && self.view.follows(leader)
            && self.link.promised_until() <= Instant::now()
        {
            // The lease protects a leader that lives. This one does not, as this manager has seen itself.
            request.leadership_transfer = true;
        }
        let answer = self.raft.vote(request).await.map_err(stopped)?;
        messages::vote_answer(back, &answer).map_err(malformed)
    }

    async fn answer_probe(&self, probe: Probe) -> ProbeAnswer {
        let linger = Duration::from_millis(probe.linger_ms).min(timing::VIGIL);
        if !linger.is_zero() {
            // Being cut short or losing leadership are both answers.
            let (Ok(()) | Err(_)) = runtime::timeout(linger, self.no_longer_leading()).await;
        }
        let gone = match probe.suspect {
            Some(leader) => self.view.sees_the_end_of(leader).await,
            None => false,
        };
        if gone {
            self.link.defer();
            // Who asks wants a vote next.
            runtime::sleep_until(self.link.promised_until()).await;
        }
        let last = self.raft.data_metrics().borrow_watched().last_log;
        let stopped = self.raft.metrics().borrow_watched().running_state.is_err();
        ProbeAnswer { gone, stopped, last: messages::place(last) }
    }

    async fn no_longer_leading(&self) {
        let mut standing = self.standing.clone();
        // An error is the end of the log.
        drop(standing.wait_for(|standing| !standing.is_leader).await);
    }

    /// Answers a snapshot that the leader sends: `header` and then pieces, as
    /// [`Transport::snapshot`](crate::Transport::snapshot) was given them.
    pub async fn answer_snapshot(&self, header: Bytes, body: SnapshotStream) -> Result<Bytes, AnswerError> {
        let (back, content) = self.read_envelope(&header)?;
        let head: SnapshotHead = messages::read(content).map_err(malformed)?;
        let vote = head.vote.into_vote();
        let members = head.members.into_stored().map_err(malformed)?;
        let at = head.at.map(Position::into_log_id);
        self.hear_leader(&vote);
        let _turn = self.incoming.lock().await;
        let snapshot = self.receive(at, &members, body, head.bytes).await?;
        let meta = SnapshotMeta { last_log_id: at, last_membership: members };
        let snapshot: SnapshotOf<TypeConfig, SnapshotBody> = openraft::storage::Snapshot { meta, snapshot };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        back.seal(&SnapshotAnswer { vote: StoredVote::of(&answer.vote) }).map_err(malformed)
    }

    async fn receive(
        &self,
        at: Option<LogId>,
        members: &StoredMembership,
        mut body: SnapshotStream,
        bytes: u64,
    ) -> Result<SnapshotBody, AnswerError> {
        let failed = AnswerError::Disk;
        let (file, members) = (self.snapshots.clone(), members.clone());
        let mut draft =
            runtime::blocking(move || file.begin_incoming(at, &members)).await.flatten().map_err(failed)?;
        let mut received = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(AnswerError::CutOff)?;
            received += piece.len() as u64;
            draft = runtime::blocking(move || draft.write_all(&piece).map(|()| draft))
                .await
                .flatten()
                .map_err(failed)?;
        }
        if received != bytes {
            return Err(AnswerError::CutOff(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let file = self.snapshots.clone();
        runtime::blocking(move || file.end_incoming(draft)).await.flatten().map_err(failed)
    }
}
