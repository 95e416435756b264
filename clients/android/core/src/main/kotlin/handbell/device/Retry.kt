package handbell.device

import java.io.IOException
import java.net.ConnectException
import java.net.MalformedURLException
import java.net.NoRouteToHostException
import java.net.ProtocolException
import java.net.UnknownHostException
import java.text.ParsePosition
import java.text.SimpleDateFormat
import java.util.Locale
import java.util.TimeZone
import javax.net.ssl.SSLHandshakeException
import javax.net.ssl.SSLPeerUnverifiedException
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow

/**
 * When a request that failed is made again.
 *
 * @property attempts how often it is made at most
 * @property first the longest pause before the second attempt, in seconds; it doubles with each
 *   further one
 * @property most no pause is longer, unless the server asks for it
 * @property patience a server that asks for more than this is asked again at the next occasion instead
 * @property isOnce whether only such a request is made again that was certainly not carried out
 */
internal data class Retry(
    val attempts: Int = 4,
    val first: Double = 1.0,
    val most: Double = 30.0,
    val patience: Double = 60.0,
    val isOnce: Boolean = false,
) {
    /**
     * Returns how many seconds to wait after an attempt, counted from 1, has failed; null for no
     * more. `random` is between 0 and 1: devices that failed together do not come back together.
     */
    fun pause(attempt: Int, error: Throwable, random: Double): Double? {
        if (attempt >= attempts || !isPassing(error)) return null
        if (isOnce && mayHaveArrived(error)) return null
        val longest = min(most, first * 2.0.pow(attempt - 1))
        val jitter = longest / 2 * random
        val asked = (error as? Problem)?.retryAfter ?: return longest / 2 + jitter
        return if (asked > patience) null else asked + jitter
    }

    companion object {
        val STANDARD = Retry()

        /** For what must not happen twice: mailing a link. */
        val MAILING = Retry(isOnce = true)
        val ONCE = Retry(attempts = 1)

        /** For what somebody waits for who is leaving, and what is made good later all the same. */
        val BRIEF = Retry(attempts = 2)

        private val PASSING = setOf(408, 425, 429, 500, 502, 503, 504)

        /** Whether the same request may go well a little later. */
        fun isPassing(error: Throwable): Boolean =
            when (error) {
                is Problem -> error.status in PASSING
                is MalformedURLException, is ProtocolException -> false
                is SSLHandshakeException, is SSLPeerUnverifiedException -> false
                else -> error is IOException
            }

        /** Whether a request that failed like this may have been carried out all the same. */
        fun mayHaveArrived(error: Throwable): Boolean =
            when (error) {
                // The server refuses, or says that it can't; a proxy does not know.
                is Problem -> error.code == Problem.UNKNOWN || (error.status >= 500 && error.status != 503)
                is ConnectException, is UnknownHostException, is NoRouteToHostException -> false
                is MalformedURLException -> false
                is SSLHandshakeException, is SSLPeerUnverifiedException -> false
                else -> error is IOException
            }

        /** Reads the header `Retry-After`: seconds, or an instant. Null for anything else. */
        fun seconds(header: String?, now: Long = System.currentTimeMillis()): Double? {
            val text = header?.trim().orEmpty()
            if (text.isEmpty()) return null
            if (text.all { it in '0'..'9' }) return text.toDouble()
            val format = SimpleDateFormat("EEE, dd MMM yyyy HH:mm:ss 'GMT'", Locale.ROOT)
            format.timeZone = TimeZone.getTimeZone("GMT")
            val at = format.parse(text, ParsePosition(0)) ?: return null
            return max(0.0, (at.time - now) / 1000.0)
        }
    }
}
