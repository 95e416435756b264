package handbell.device

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import kotlinx.coroutines.withTimeoutOrNull
import java.io.IOException

/**
 * The device's side of a Handbell server.
 *
 * One object for the life of the app. Its calls may come in any order and at the same time: what
 * changes the session happens one after another, and an answer counts only for the session that it was
 * asked for. A sign-in or a sign-out makes those before it void: they throw
 * [HandbellException.Overtaken], and a session that they still get is ended again.
 *
 * Nothing that identifies the user is kept but the session's secret, and a mail address until its
 * registration is answered; both lie in the [Storage].
 */
public class HandbellDevice internal constructor(
    configuration: Configuration,
    storage: Storage,
    private val source: IdentitySource?,
    private val facts: () -> DeviceFacts,
    transport: Transport,
    private val timing: Timing,
) {
    /**
     * @param storage where the session is kept: a place that goes with the app, and in no backup
     * @param facts what the device tells of itself, read anew each time
     * @param identity brings a token for [Identity.Fresh]
     */
    public constructor(
        configuration: Configuration,
        storage: Storage,
        facts: () -> DeviceFacts,
        identity: IdentitySource? = null,
        transport: Transport = SystemTransport(),
    ) : this(configuration, storage, identity, facts, transport, Timing())

    private val vault = Vault(storage)
    private val turns = Turns(timing)
    private val operations =
        Operations(configuration, Wire(configuration, transport), vault, turns, source, facts, timing)

    /** Whether this device has a session, proven or not. Throws where that can't be told now. */
    public val isRegistered: Boolean get() = vault.record().isRegistered

    /**
     * Whether somebody has signed in and is not registered yet, without an address or without a
     * network. [refresh] registers them.
     */
    public val isWaiting: Boolean
        get() = operations.waitingToken != null || vault.record().waiting != null

    /**
     * Tells the server who uses this device, as soon as there is an address.
     *
     * Call it when the user has signed in. Returns null while there is no address: the sign-in waits
     * for [refresh], if need be until the next start of the app. So it does when this throws for want
     * of a network. A session that is active keeps on until the new one is.
     */
    public suspend fun signIn(identity: Identity): Standing? {
        val mine = withContext(Dispatchers.IO) { operations.begin(identity) }
        if (operations.address == null) return null
        return turns.inTurn { operations.register(identity, mine) }
    }

    /**
     * Takes over a session that the app's back end has registered with its API key.
     *
     * `id` and `secret` are what the server answered the back end with. Throws
     * [HandbellException.NotASession] when the server knows no such session; the one of before stays
     * then. Without a network it throws as well, and the session is asked for at the next refresh.
     */
    public suspend fun adopt(id: Long, secret: String): Standing? {
        if (id <= 0 || secret.isEmpty() || secret.any { it.code !in 33..126 }) {
            throw HandbellException.NotASession()
        }
        val mine = withContext(Dispatchers.IO) { operations.beginAdoption(Session(id, secret)) }
        return turns.inTurn { operations.adopt(secret, mine) }
    }

    /**
     * Tells the server that the app is still there, and what has changed of the device.
     *
     * Call it at each start, and with each new address that the push service tells. It registers who
     * waits, ends sessions of which the server could not be told before, and hands in receipts that
     * wait. Returns null where this device has no session, or none any more: whoever is signed in has
     * to be registered anew. When it throws, nothing is lost, and it is made good by the next one.
     */
    public suspend fun refresh(address: PushAddress? = null): Standing? {
        if (address != null) operations.address = address
        return turns.inTurn { operations.refresh() }
    }

    /**
     * Refreshes where there is a reason: something waits, the language or the time zone is another
     * one, or the last time is an hour ago. Call it when the app comes to the front. It never throws.
     */
    public suspend fun refreshIfNeeded() {
        try {
            if (withContext(Dispatchers.IO) { operations.isOutOfDate() }) refresh()
        } catch (error: Exception) {
            // The next one makes it good.
            if (error !is HandbellException && error !is Problem && error !is IOException) throw error
        }
    }

    /**
     * Ends every session of this device: nothing more is sent to it for this user.
     *
     * Wait for it before the next user signs in. It throws only where the session can't be written
     * now. Where the server can't be told within five seconds the answer is [SignOut.DEFERRED]; then
     * give the push service's address back, so that nothing comes meanwhile.
     */
    public suspend fun signOut(): SignOut {
        withContext(Dispatchers.IO) { operations.depart() }
        val isSettled =
            withTimeoutOrNull(timing.signOut) { turns.inTurn { operations.closeLeaving(Retry.BRIEF) } }
        val isTold = withContext(Dispatchers.IO) { operations.isAllTold() }
        return if (isTold && isSettled != null) SignOut.CLOSED else SignOut.DEFERRED
    }

    /**
     * Reports what became of a notification. It never throws: what can't be told now is told by a
     * later report or refresh, as long as the user does not sign out.
     */
    public suspend fun report(receipt: Receipt, message: PushMessage) {
        val id = message.id ?: return
        withContext(Dispatchers.IO) { operations.report(receipt, id) }
    }
}
