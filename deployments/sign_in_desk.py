"""From the configuration to what the routes of /v1/auth work with."""

from __future__ import annotations

from deployments.directory_threads import DirectoryThreads
from deployments.identity import Credentials
from deployments.session_desk import CountAttempt, SessionDesk, SignInRecord
from deployments.sign_in_routes import SignInDesk
from deployments.sign_in_ways import sealer, ways
from deployments.signing_in import SigningIn
from index.ledger import Ledger
from index.settings import IdentitySettings
from policies.guard import Guard, Recorder
from policies.keyed_hashes import KeyedHashes
from policies.limits import Rate
from policies.signing_in.attempts import AddressAttempts


def sign_in_desk(
    identity: IdentitySettings,
    credentials: Credentials,
    ledger: Ledger,
    guard: Guard,
    audit: Recorder,
    policy_version: str,
    count: CountAttempt,
    hashes: KeyedHashes,
) -> SignInDesk:
    """Build it. Raises `ConfigurationError` naming the setting that is wrong."""
    settings, built, threads = identity.sign_in, ways(identity), DirectoryThreads()
    record, rate = SignInRecord(audit, policy_version), settings.attempts_per_address
    per_address = Rate.of(rate) if rate is not None else None
    desk = SessionDesk(
        identity.sessions,
        ledger,
        credentials.sessions,
        credentials.tokens,
        credentials.revocations,
        built,
        threads,
        record,
        count,
        AddressAttempts(per_address),  # its own: pages that refresh leave room for people who sign in
    )
    if not settings.any:
        return SignInDesk(desk, guard, None)
    signing_in = SigningIn(
        built,
        desk,
        ledger.sessions,
        sealer(identity),
        record,
        threads,
        count,
        AddressAttempts(per_address),
        secure=(settings.public_url or "").startswith("https:"),
        hashes=hashes,
    )
    return SignInDesk(desk, guard, signing_in)
