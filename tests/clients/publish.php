<?php
// A publisher in PHP, as written for connmix: it knows only a URL. Prints body and status.
//
// Usage: php publish.php curl|stream URL CHANNEL TEXT

[, $how, $url, $channel, $text] = $argv;
$body = json_encode(['c' => $channel, 'd' => $text], JSON_UNESCAPED_UNICODE | JSON_THROW_ON_ERROR);

if ($how === 'curl') {
    $curl = curl_init($url);
    curl_setopt_array($curl, [
        CURLOPT_POST => true,
        CURLOPT_POSTFIELDS => $body,
        CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_PROXY => '',
        CURLOPT_TIMEOUT => 30,
    ]);
    $answer = curl_exec($curl);
    if ($answer === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
} else {
    $answer = file_get_contents($url, false, stream_context_create(['http' => [
        'method' => 'POST',
        'header' => 'Content-Type: application/json',
        'content' => $body,
        'ignore_errors' => true,
        'timeout' => 30,
    ]]));
    if ($answer === false) {
        exit(1);
    }
    $status = explode(' ', $http_response_header[0])[1];
}
echo "$answer $status\n";
