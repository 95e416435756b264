package handbell.device

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.nio.file.Files
import java.nio.file.NoSuchFileException
import java.nio.file.StandardCopyOption.ATOMIC_MOVE

/**
 * A place that keeps one short text: the session's secret is in it.
 *
 * Whatever is wrong with the place is thrown as an [IOException]: null promises that there is nothing.
 */
public interface Storage {
    @Throws(IOException::class)
    public fun read(): String?

    /** Puts a text in the place of what was there. When it throws, what was there is there still. */
    @Throws(IOException::class)
    public fun write(text: String)
}

/** Keeps the text in a file, which is replaced as a whole. */
public class FileStorage(private val file: File) : Storage {
    override fun read(): String? =
        try {
            String(Files.readAllBytes(file.toPath()))
        } catch (_: NoSuchFileException) {
            null
        }

    override fun write(text: String) {
        val next = File("${file.path}.next")
        file.absoluteFile.parentFile?.mkdirs()
        FileOutputStream(next).use {
            it.write(text.toByteArray())
            it.fd.sync()
        }
        Files.move(next.toPath(), file.toPath(), ATOMIC_MOVE)
    }
}
