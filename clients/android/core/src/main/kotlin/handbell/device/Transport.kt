package handbell.device

import java.io.ByteArrayOutputStream
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.URL

/** A request of the device to the server. The body is JSON. */
public class HttpRequest(
    public val method: String,
    public val url: String,
    public val headers: Map<String, String>,
    public val body: String?,
    public val seconds: Int,
)

/** What came back. */
public class HttpAnswer(
    public val status: Int,
    public val contentType: String?,
    public val retryAfter: String?,
    public val body: String,
)

/**
 * Makes one attempt of a request, on a thread that may wait. An app that has an HTTP client of its own
 * puts it here.
 *
 * It follows no redirection: the server never sends one, and a network's sign-in page that does must
 * neither get the secret nor pass for an answer. A request that may have been carried out is not made
 * again by it.
 */
public fun interface Transport {
    @Throws(IOException::class)
    public fun send(request: HttpRequest): HttpAnswer
}

/** The HTTP client that Android and every JVM have. */
public class SystemTransport : Transport {
    override fun send(request: HttpRequest): HttpAnswer {
        val connection = URL(request.url).openConnection() as HttpURLConnection
        connection.requestMethod = request.method
        connection.connectTimeout = request.seconds * 1000
        connection.readTimeout = request.seconds * 1000
        connection.instanceFollowRedirects = false
        connection.useCaches = false
        for ((name, value) in request.headers) connection.setRequestProperty(name, value)
        // On a connection that was kept, it makes a request that failed again, and tells nobody.
        connection.setRequestProperty("Connection", "close")
        try {
            request.body?.let { body ->
                connection.doOutput = true
                connection.outputStream.use { it.write(body.toByteArray()) }
            }
            val status = connection.responseCode
            val stream = if (status < 400) connection.inputStream else connection.errorStream
            return HttpAnswer(
                status,
                connection.contentType,
                connection.getHeaderField("Retry-After"),
                stream?.use(::text).orEmpty(),
            )
        } finally {
            connection.disconnect()
        }
    }

    private fun text(stream: InputStream): String {
        val read = ByteArrayOutputStream()
        val buffer = ByteArray(8192)
        while (true) {
            val count = stream.read(buffer)
            if (count < 0) return read.toString("UTF-8")
            read.write(buffer, 0, count)
            if (read.size() > MOST_BYTES) throw IOException("The answer is longer than $MOST_BYTES bytes")
        }
    }

    private companion object {
        const val MOST_BYTES = 1 shl 20
    }
}
