package handbell.android

import android.content.Intent
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull

class TapsTest {
    /** A tap's extras are the message, once; any other start of the activity is no tap. */
    @Test
    fun aTapIsToldOnce() {
        val intent = Intent()
        assertNull(tappedMessage(intent))
        intent.putExtra("handbell", "abc").putExtra("url", "https://example.com/1").putExtra("gcm.n.e", 1)
        val message = tappedMessage(intent)
        assertEquals("abc" to "https://example.com/1", message?.id to message?.url)
        assertNull(tappedMessage(intent))
        assertNull(tappedMessage(null))
    }
}
