package handbell.device

import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import java.net.UnknownHostException
import java.util.concurrent.CountDownLatch
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

class SignOutTest {
    /** Every session that the device knows is closed. */
    @Test
    fun allAreClosed() = test {
        val phone = Phone {
            when {
                it.method == "DELETE" -> closed
                "two" in it.body -> told(8, "pending", "hbs_two")
                else -> told(7, "active", "hbs_one")
            }
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Mail("one@example.com"))
        phone.device.signIn(Identity.Mail("two@example.com"))
        assertEquals(SignOut.CLOSED, phone.device.signOut())
        assertEquals(listOf("DELETE /8 hbs_two", "DELETE /7 hbs_one"), phone.server.lines.takeLast(2))
        assertFalse(phone.device.isRegistered)
        assertNull(phone.device.refresh(ADDRESS))
    }

    /** Without a network it is over on the device, and the server is told at the next start. */
    @Test
    fun withoutANetworkItIsMadeGood() = test {
        var isThere = true
        val first = Phone { if (isThere) told(7, "active", "hbs_one") else throw UnknownHostException() }
        first.device.refresh(ADDRESS)
        first.device.signIn(Identity.Token("signed"))
        isThere = false
        assertEquals(SignOut.DEFERRED, first.device.signOut())
        assertFalse(first.device.isRegistered)
        val phone = first.restarted({ closed })
        assertNull(phone.device.refresh(ADDRESS))
        assertEquals(listOf("DELETE /7 hbs_one"), phone.server.lines)
    }

    /** What is not the server's answer to a sign-out closes nothing. */
    @Test
    fun aHotelsPageClosesNothing() = test {
        var answer = told(7, "active", "hbs_one")
        val phone = Phone { answer }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        answer = HttpAnswer(200, "text/html", null, "Welcome")
        assertEquals(SignOut.DEFERRED, phone.device.signOut())
        answer = problem(401, "unauthorized")
        assertEquals(SignOut.CLOSED, phone.device.signOut())
    }

    /** A registration that a sign-out overtakes is closed when its answer comes. */
    @Test
    fun aLateAnswerIsEnded() = test {
        val (hasAsked, mayAnswer) = CompletableDeferred<Unit>() to CountDownLatch(1)
        val phone = Phone(signOut = 1) {
            if (it.method == "DELETE") {
                closed
            } else {
                hasAsked.complete(Unit)
                mayAnswer.await()
                told(7, "active", "hbs_late")
            }
        }
        phone.device.refresh(ADDRESS)
        coroutineScope {
            val signIn = async { runCatching { phone.device.signIn(Identity.Token("signed")) } }
            hasAsked.await()
            assertEquals(SignOut.DEFERRED, phone.device.signOut())
            mayAnswer.countDown()
            assertTrue(signIn.await().exceptionOrNull() is HandbellException.Overtaken)
        }
        assertEquals("DELETE /7 hbs_late", phone.server.lines.last())
        assertFalse(phone.device.isRegistered)
    }

    /** A renewal that hangs does not hold up a sign-out. */
    @Test
    fun aRenewalIsLetGoOf() = test {
        val (hasAsked, mayAnswer) = CompletableDeferred<Unit>() to CountDownLatch(1)
        val phone = Phone {
            when {
                it.method == "DELETE" -> closed
                it.isRegistration -> told(7, "active", "hbs_one")
                else -> {
                    hasAsked.complete(Unit)
                    mayAnswer.await()
                    told(7, "active")
                }
            }
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        coroutineScope {
            val renewal = async { runCatching { phone.device.refresh() } }
            hasAsked.await()
            assertEquals(SignOut.CLOSED, phone.device.signOut())
            assertTrue(renewal.await().exceptionOrNull() is HandbellException.Overtaken)
            mayAnswer.countDown()
        }
        assertFalse(phone.device.isRegistered)
    }

    /** Of two sign-ins at once the later one counts, and the session of the other is closed. */
    @Test
    fun theLaterSignInCounts() = test {
        val (hasAsked, mayAnswer) = CompletableDeferred<Unit>() to CountDownLatch(1)
        val hasBegun = CompletableDeferred<Unit>()
        val storage = MemoryStorage()
        val phone = Phone(storage, source = { "two" }) {
            when {
                it.method == "DELETE" -> closed
                it.said("identity_token") == "one" -> {
                    hasAsked.complete(Unit)
                    mayAnswer.await()
                    told(7, "active", "hbs_one")
                }
                else -> told(8, "active", "hbs_two")
            }
        }
        phone.device.refresh(ADDRESS)
        coroutineScope {
            val one = async { runCatching { phone.device.signIn(Identity.Token("one")) } }
            hasAsked.await()
            storage.written = { if ("fresh" in it) hasBegun.complete(Unit) }
            val two = async { phone.device.signIn(Identity.Fresh) }
            hasBegun.await()
            mayAnswer.countDown()
            assertEquals(Standing.ACTIVE, two.await())
            assertTrue(one.await().exceptionOrNull() is HandbellException.Overtaken)
        }
        assertTrue("DELETE /7 hbs_one" in phone.server.lines)
        assertTrue(phone.device.isRegistered)
        assertTrue("hbs_two" in phone.storage.text.orEmpty())
    }
}
