package handbell.android

import android.content.Context
import android.content.pm.PackageManager
import android.os.Build
import handbell.device.Configuration
import handbell.device.DeviceFacts
import handbell.device.FileStorage
import handbell.device.HandbellDevice
import handbell.device.IdentitySource
import handbell.device.SystemTransport
import handbell.device.Transport
import java.io.File
import java.util.TimeZone

/**
 * Returns the device's side of a Handbell server, with its session in a file of this app that no
 * backup takes to another phone, and that goes when the app is removed.
 *
 * Make one for the life of the app, in its `Application`.
 */
public fun handbellDevice(
    context: Context,
    configuration: Configuration,
    identity: IdentitySource? = null,
    transport: Transport = SystemTransport(),
): HandbellDevice {
    val app = context.applicationContext
    val name = configuration.app.replace(File.separatorChar, '-')
    val storage = FileStorage(File(app.noBackupFilesDir, "handbell-$name.json"))
    return HandbellDevice(configuration, storage, { factsOf(app) }, identity, transport)
}

/** Returns what the device tells of itself. */
public fun factsOf(context: Context): DeviceFacts =
    DeviceFacts(
        device = listOf(Build.MANUFACTURER, Build.MODEL).filter(String::isNotBlank).joinToString(" "),
        osVersion = Build.VERSION.RELEASE,
        appVersion = versionOf(context),
        // Of this app, where the user chose a language for it.
        locale = context.resources.configuration.locales[0]?.toLanguageTag(),
        timeZone = TimeZone.getDefault().id,
    )

private fun versionOf(context: Context): String? =
    try {
        context.packageManager.getPackageInfo(context.packageName, 0).versionName
    } catch (_: PackageManager.NameNotFoundException) {
        null
    }
