package handbell.android

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import java.io.ByteArrayOutputStream
import java.io.IOException
import java.net.URL
import javax.net.ssl.HttpsURLConnection

/** Loads the picture of a notification. One that can't be had is left out, and nothing waits long. */
internal object Picture {
    private const val MILLISECONDS = 8_000
    private const val MOST_BYTES = 5 shl 20

    /** As wide as a phone shows it. */
    private const val WIDTH = 1024

    fun load(address: String): Bitmap? {
        if (!address.startsWith("https://")) return null
        return try {
            bytes(address)?.let(::decode)
        } catch (_: IOException) {
            null
        }
    }

    private fun bytes(address: String): ByteArray? {
        val connection = URL(address).openConnection() as HttpsURLConnection
        connection.connectTimeout = MILLISECONDS
        connection.readTimeout = MILLISECONDS
        try {
            if (connection.responseCode != HttpsURLConnection.HTTP_OK) return null
            val deadline = System.nanoTime() + MILLISECONDS * 1_000_000L
            val read = ByteArrayOutputStream()
            val buffer = ByteArray(16_384)
            connection.inputStream.use { stream ->
                while (true) {
                    val count = stream.read(buffer)
                    if (count < 0) return read.toByteArray()
                    read.write(buffer, 0, count)
                    if (read.size() > MOST_BYTES || System.nanoTime() > deadline) return null
                }
            }
        } finally {
            connection.disconnect()
        }
    }

    private fun decode(bytes: ByteArray): Bitmap? {
        val size = BitmapFactory.Options()
        size.inJustDecodeBounds = true
        BitmapFactory.decodeByteArray(bytes, 0, bytes.size, size)
        val options = BitmapFactory.Options()
        options.inSampleSize = generateSequence(1) { it * 2 }.first { size.outWidth / (it * 2) < WIDTH }
        return BitmapFactory.decodeByteArray(bytes, 0, bytes.size, options)
    }
}
