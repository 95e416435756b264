package handbell.device

import java.io.IOException
import java.net.ConnectException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

class SignInTest {
    /** A sign-in without an address waits, also over a restart, and is made with the first one. */
    @Test
    fun aSignInWaitsForTheAddress() = test {
        val source = IdentitySource { "signed" }
        val first = Phone(source = source) { error("nothing is to be asked") }
        assertNull(first.device.signIn(Identity.Fresh))
        assertTrue(first.device.isWaiting)

        val phone = first.restarted({ told(7, "active", "hbs_one") }, source)
        assertEquals(Standing.ACTIVE, phone.device.refresh(ADDRESS))
        val asked = phone.server.asked.single()
        assertEquals("signed", asked.said("identity_token"))
        assertEquals("a-registration-token", asked.said("device_token"))
        assertEquals("android", asked.said("platform"))
        assertEquals("twin", asked.said("environment"))
        assertEquals("fr-CH", asked.said("locale"))
        assertTrue(phone.device.isRegistered)
        assertFalse(phone.device.isWaiting)
    }

    /** The next start repeats itself by the secret, with what is new, and names nobody. */
    @Test
    fun aStartRenews() = test {
        val first = Phone { told(7, "active", "hbs_one") }
        first.device.refresh(ADDRESS)
        first.device.signIn(Identity.Token("signed"))
        val id = first.server.asked.last().said("device_id")

        val phone = first.restarted({ told(7, "active") })
        assertEquals(Standing.ACTIVE, phone.device.refresh(PushAddress.Fcm("another")))
        val asked = phone.server.asked.single()
        assertEquals(listOf("POST  hbs_one"), phone.server.lines)
        assertFalse(asked.isRegistration)
        assertEquals("another", asked.said("device_token"))
        assertEquals(id, asked.said("device_id"))
    }

    /** A subscription of UnifiedPush is told as one. */
    @Test
    fun anEndpointIsTold() = test {
        val phone = Phone { told(7, "active", "hbs_one") }
        phone.device.refresh(PushAddress.WebPush("https://up.example.com/x", "BPub", "auth"))
        phone.device.signIn(Identity.Mail("test@4d.com"))
        assertTrue(
            """"subscription":{"endpoint":"https://up.example.com/x","keys":{"p256dh":"BPub","auth":"auth"}}""" in
                phone.server.asked.single().body,
        )
    }

    /** A session that is proven stays until the next one is; then it is closed. */
    @Test
    fun theFormerSessionStaysUntilTheNextIsProven() = test {
        var status = "active"
        val phone = Phone {
            when {
                it.method == "DELETE" -> closed
                it.isRegistration && "two" in it.body -> told(8, "pending", "hbs_two")
                it.isRegistration -> told(7, "active", "hbs_one")
                it.secret == "hbs_two" -> told(8, status)
                else -> told(7, "active")
            }
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Mail("one@example.com"))
        status = "pending"
        assertEquals(Standing.PENDING, phone.device.signIn(Identity.Mail("two@example.com")))
        assertEquals("hbs_one", phone.server.asked.last().secret)
        assertEquals(Standing.PENDING, phone.device.refresh())
        assertTrue(phone.server.lines.none { it.startsWith("DELETE") })
        status = "active"
        assertEquals(Standing.ACTIVE, phone.device.refresh())
        assertEquals("DELETE /7 hbs_one", phone.server.lines.last())
    }

    /** What passes is tried again with growing pauses; a mail whose answer got lost is not. */
    @Test
    fun whatPassesIsTriedAgain() = test {
        var failures = 2
        val phone = Phone {
            if (failures-- > 0) throw ConnectException("no route") else told(7, "active", "hbs_one")
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Mail("test@4d.com"))
        assertEquals(listOf(0.5, 1.0), phone.pauses)

        val lost = Phone { throw IOException("reset") }
        lost.device.refresh(ADDRESS)
        assertThrows(IOException::class) { lost.device.signIn(Identity.Mail("test@4d.com")) }
        assertEquals(1, lost.server.asked.size)
        assertTrue(lost.device.isWaiting)
        assertEquals(SignOut.DEFERRED, lost.device.signOut())
    }

    /** What the server asks for is waited, and not asked for again when it is too long. */
    @Test
    fun retryAfterIsHonoured() = test {
        var asked = 0
        val phone = Phone {
            if (asked++ == 0) problem(429, "rate-limited", "7") else told(7, "active", "hbs_one")
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        assertEquals(listOf(7.0), phone.pauses)
        val patient = Phone { problem(503, "unavailable", "3600") }
        patient.device.refresh(ADDRESS)
        assertThrows(Problem::class) { patient.device.signIn(Identity.Token("signed")) }
        assertEquals(emptyList(), patient.pauses)
        assertTrue(patient.device.isWaiting)
    }

    /** A sign-in that the server refuses does not wait; one with a source may bring a better token. */
    @Test
    fun aRefusalEndsTheWaiting() = test {
        val phone = Phone { problem(422, "invalid-request") }
        phone.device.refresh(ADDRESS)
        assertThrows(Problem::class) { phone.device.signIn(Identity.Mail("nobody")) }
        assertFalse(phone.device.isWaiting)
        val fresh = Phone(source = { "signed" }) { problem(401, "identity-invalid") }
        fresh.device.refresh(ADDRESS)
        assertThrows(Problem::class) { fresh.device.signIn(Identity.Fresh) }
        assertTrue(fresh.device.isWaiting)
    }

    /** Nobody is registered where the back end says that nobody is signed in. */
    @Test
    fun withoutAnIdentityNobodyIsRegistered() = test {
        val phone = Phone(source = { null }) { error("nothing is to be asked") }
        phone.device.refresh(ADDRESS)
        assertThrows(HandbellException.NoIdentity::class) { phone.device.signIn(Identity.Fresh) }
        assertFalse(phone.device.isWaiting)
        val without = Phone { error("nothing is to be asked") }
        assertThrows(HandbellException.NoIdentity::class) { without.device.signIn(Identity.Fresh) }
    }

    /** Only the server's own word ends a session; a hotel's page and a lost proof do not. */
    @Test
    fun onlyTheServerEndsASession() = test {
        var answer = told(7, "active", "hbs_one")
        val phone = Phone { answer }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        answer = HttpAnswer(401, "text/html", null, "<h1>Welcome</h1>")
        val strange = assertThrows(Problem::class) { phone.device.refresh() } as Problem
        assertEquals(Problem.UNKNOWN, strange.code)
        answer = HttpAnswer(200, "text/html", null, "<h1>Welcome</h1>")
        assertThrows(Problem::class) { phone.device.refresh() }
        answer = problem(403, "proof-required")
        assertNull(phone.device.refresh())
        assertTrue(phone.device.isRegistered)
        answer = problem(401, "unauthorized")
        assertNull(phone.device.refresh())
        assertFalse(phone.device.isRegistered)
    }

    /** A session of the back end's key is adopted in the place of the one before. */
    @Test
    fun aSessionIsAdopted() = test {
        val phone = Phone {
            when {
                it.method == "DELETE" -> closed
                it.isRegistration -> told(7, "active", "hbs_one")
                it.secret == "hbs_back" -> told(9, "active")
                it.secret == "hbs_one" -> told(7, "active")
                else -> problem(401, "unauthorized")
            }
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        assertEquals(Standing.ACTIVE, phone.device.adopt(9, "hbs_back"))
        assertTrue("DELETE /7 hbs_one" in phone.server.lines)
        assertThrows(HandbellException.NotASession::class) { phone.device.adopt(9, "hbs_wrong") }
        assertThrows(HandbellException.NotASession::class) { phone.device.adopt(0, "a b") }
        assertTrue(phone.device.isRegistered)
    }
}
