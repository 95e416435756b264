package handbell.device

import java.io.IOException
import java.net.ConnectException
import java.net.SocketTimeoutException
import java.net.UnknownHostException
import javax.net.ssl.SSLHandshakeException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull

class RetryTest {
    /** Pauses double up to the longest, with jitter above the half. */
    @Test
    fun pausesGrow() {
        val many = Retry(attempts = 9)
        val error = ConnectException()
        assertEquals(listOf(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0), (1..7).map { many.pause(it, error, 0.0) })
        assertEquals(1.0, many.pause(1, error, 1.0))
        assertNull(Retry.STANDARD.pause(4, error, 0.0))
    }

    /** What each failure means: whether it passes, and whether it may have been carried out. */
    @Test
    fun failuresAreTold() {
        val table =
            listOf(
                Triple(ConnectException(), true, false),
                Triple(UnknownHostException(), true, false),
                Triple(SocketTimeoutException(), true, true),
                Triple(IOException("reset"), true, true),
                Triple(SSLHandshakeException("no trust"), false, false),
                Triple(Problem(503, "unavailable"), true, false),
                Triple(Problem(502, Problem.UNKNOWN), true, true),
                Triple(Problem(500, "internal"), true, true),
                Triple(Problem(429, "rate-limited"), true, false),
                Triple(Problem(422, "invalid-request"), false, false),
                Triple(IllegalStateException(), false, false),
            )
        for ((error, passes, arrived) in table) {
            assertEquals(passes, Retry.isPassing(error), "$error passes")
            assertEquals(arrived, Retry.mayHaveArrived(error), "$error may have arrived")
        }
    }

    /** Retry-After is seconds or an instant. */
    @Test
    fun retryAfterIsRead() {
        val now = 1_445_412_480_000
        assertEquals(120.0, Retry.seconds("120"))
        assertEquals(10.0, Retry.seconds("Wed, 21 Oct 2015 07:28:10 GMT", now))
        assertEquals(0.0, Retry.seconds("Wed, 21 Oct 2015 07:27:00 GMT", now))
        assertNull(Retry.seconds("soon"))
        assertNull(Retry.seconds(null))
    }
}
