package handbell.android

import android.content.Intent
import handbell.device.PushMessage

/**
 * Returns the message whose notification was tapped; null for any other start of the activity, and for
 * an intent that was asked before: Android hands the same one to an activity that it makes anew when
 * the phone is turned.
 *
 * Call it in `onCreate` and `onNewIntent`, show what the message is about, and report it as opened. It
 * knows the intents of [Notifications], and those that Firebase makes where Android has shown the
 * notification by itself: both have the message's data as extras.
 */
public fun tappedMessage(intent: Intent?): PushMessage? {
    val extras = intent?.extras ?: return null
    if (!extras.containsKey(PushMessage.ID)) return null
    // Its typed form logs each extra of another type, and Firebase adds some.
    @Suppress("DEPRECATION")
    val data = extras.keySet().mapNotNull { name -> (extras.get(name) as? String)?.let { name to it } }
    intent.removeExtra(PushMessage.ID)
    return PushMessage(data.toMap())
}
