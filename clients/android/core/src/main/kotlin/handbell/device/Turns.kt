package handbell.device

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.async
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlin.random.Random

/**
 * How the client waits. A test does not.
 *
 * @property signOut how many milliseconds [HandbellDevice.signOut] waits for the network
 * @property fresh how many milliseconds old what the server knows may be when the app comes to the front
 */
internal class Timing(
    val pause: suspend (Double) -> Unit = { delay((it * 1000).toLong()) },
    val random: () -> Double = Random::nextDouble,
    val now: () -> Long = System::currentTimeMillis,
    val signOut: Long = 5_000,
    val fresh: Long = 3_600_000,
)

/**
 * Does one thing after another, and knows what was overtaken: a sign-in or sign-out makes void what
 * was asked for before.
 */
internal class Turns(private val timing: Timing) {
    // Whoever waits for work may give up, and the work goes on: an answer may tell a secret.
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.IO)
    private val turn = Mutex()
    private var number = 0
    private val naps = mutableSetOf<Job>()
    private val loose = mutableSetOf<() -> Unit>()

    /** The number of the last sign-in or sign-out. Who began under another one has been overtaken. */
    val current: Int @Synchronized get() = number

    /**
     * Makes what is under way void, together with a change that nothing comes in between, and returns
     * the new number.
     */
    @Synchronized
    fun overtake(change: () -> Unit): Int {
        number += 1
        naps.forEach(Job::cancel)
        loose.forEach { it() }
        change()
        return number
    }

    /** Makes a change unless who asks has been overtaken. Says whether it was made. */
    @Synchronized
    fun ifCurrent(mine: Int, change: () -> Unit): Boolean {
        if (number != mine) return false
        change()
        return true
    }

    fun check(mine: Int) {
        if (current != mine) throw HandbellException.Overtaken()
    }

    /** Does work when everything that was asked for before is done. */
    suspend fun <T> inTurn(work: suspend () -> T): T = scope.async { turn.withLock { work() } }.await()

    /** Repeats a request as `policy` says, until it goes well or is overtaken. */
    suspend fun <T> repeating(policy: Retry, mine: Int, request: suspend () -> T): T {
        var attempt = 1
        while (true) {
            try {
                return request()
            } catch (error: CancellationException) {
                throw error
            } catch (error: Exception) {
                val seconds = policy.pause(attempt, error, timing.random())
                if (seconds == null || !rest(seconds, mine)) throw error
                attempt += 1
            }
        }
    }

    /**
     * Waits for something on which nothing hangs: a sign-in or sign-out lets go of it, whether it
     * comes to an end or not. A registration is never let go of: its answer may tell a secret.
     */
    suspend fun <T> loosely(mine: Int, work: suspend () -> T): T {
        val told = CompletableDeferred<Result<T>>()
        val letGo = { told.complete(Result.failure(HandbellException.Overtaken())).let {} }
        if (!ifCurrent(mine) { loose += letGo }) throw HandbellException.Overtaken()
        scope.launch { told.complete(runCatching { work() }) }
        try {
            return told.await().getOrThrow()
        } finally {
            synchronized(this) { loose -= letGo }
        }
    }

    /** Waits so many seconds. Says whether who asks was not overtaken meanwhile. */
    private suspend fun rest(seconds: Double, mine: Int): Boolean {
        val resting = scope.launch { timing.pause(seconds) }
        if (!ifCurrent(mine) { naps += resting }) resting.cancel()
        resting.join()
        synchronized(this) { naps -= resting }
        return current == mine
    }
}
