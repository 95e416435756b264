package handbell.device

import org.junit.Rule
import org.junit.rules.TemporaryFolder
import java.io.File
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class StorageTest {
    @get:Rule
    val folder = TemporaryFolder()

    /** A file that is not there is nothing; one that can't be read is an error. */
    @Test
    fun aFileKeepsTheText() {
        val storage = FileStorage(File(folder.root, "deep/handbell.json"))
        assertNull(storage.read())
        storage.write("one")
        storage.write("two")
        assertEquals("two", storage.read())
        assertEquals(listOf("handbell.json"), File(folder.root, "deep").list()?.toList())
        assertFailsWith<java.io.IOException> { FileStorage(folder.root).read() }
    }

    /** What can't be read now is not taken for nothing, and a sign-in fails before it is sent. */
    @Test
    fun aLockedPlaceIsTold() = test {
        val storage = MemoryStorage().apply { isReadable = false }
        val phone = Phone(storage) { error("nothing is to be asked") }
        assertThrows(HandbellException.Storage::class) { phone.device.isRegistered }
        assertThrows(HandbellException.Storage::class) { phone.device.refresh(ADDRESS) }
        storage.isReadable = true
        storage.isWritable = false
        assertThrows(HandbellException.Storage::class) { phone.device.signIn(Identity.Token("signed")) }
    }

    /** A secret that could not be written counts, and is written at the next occasion. */
    @Test
    fun aSecretIsNotLost() = test {
        val storage = MemoryStorage()
        val phone = Phone(storage) {
            if (it.isRegistration) storage.isWritable = false
            told(7, "active", "hbs_one".takeIf { _ -> it.isRegistration })
        }
        phone.device.refresh(ADDRESS)
        assertThrows(HandbellException.Storage::class) { phone.device.signIn(Identity.Token("signed")) }
        storage.isWritable = true
        assertEquals(Standing.ACTIVE, phone.device.refresh())
        assertTrue("hbs_one" in storage.text.orEmpty())
    }

    /** What cannot be understood counts as nothing; what a newer version has written beside is kept. */
    @Test
    fun aStrangeTextIsNothing() = test {
        val phone = Phone(MemoryStorage("{ torn")) { told(7, "active", "hbs_one") }
        assertTrue(!phone.device.isRegistered)
        val newer = """{"deviceId":"d","session":{"id":7,"secret":"s"},"of":"a newer one"}"""
        assertTrue(Phone(MemoryStorage(newer)) { closed }.device.isRegistered)
    }
}
