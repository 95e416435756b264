// Not compiled by Handbell's own tests: Android's Gradle plugin, androidx and Firebase are in Google's
// repository alone.
plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
    id("com.google.gms.google-services") // reads google-services.json of the Firebase project
}

android {
    namespace = "com.sample.myapp"
    compileSdk = 35
    defaultConfig {
        applicationId = "com.sample.myapp"
        minSdk = 26
        targetSdk = 35
    }
}

dependencies {
    implementation("handbell:handbell-android:0.2.0") // mavenLocal(), after `mvn install`
    implementation(platform("com.google.firebase:firebase-bom:33.1.0"))
    implementation("com.google.firebase:firebase-messaging")
}
