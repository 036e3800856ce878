"""What the words around a number say it is, in the languages of the European Union's larger half.

A topic is a kind of number ("phone", "ssn"); phrases of up to three words stand for it. Only words of two letters and
more count, in lower case: "driver's licence no." is read as `driver licence no`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping

from policies.pii.tables import tables

PHRASES: Mapping[str, str] = {
    "phone": """phone, phones, telephone, telephones, tel, mobile, mobil, cell, cellphone, cellular, dial,
        landline, hotline, whatsapp, sms, pager, phone number, telefon, telefonnummer, telefonnr, handy,
        handynummer, rufnummer, mobiltelefon, mobilnummer, rückruf, durchwahl, téléphone, portable,
        numéro de téléphone, teléfono, telefono, móvil, movil, celular, cellulare, telefone, telemóvel,
        telemovel, telefoon, telefoonnummer, mobiel, numer telefonu, komórka, tel kom, puhelin,
        puhelinnumero, telefonszám, telefón, telefonní, mobitel, τηλέφωνο, κινητό, телефон, тел,
        мобилен, мобильный, telefonas, tālrunis, phone no, direct line, 電話, 전화, 电话""",
    "call": """my number, his number, her number, their number, our number,
        your number, call, calling, called, caller, contact, reach, reached, answering, answer, ring, office,
        texting, anruf, anrufen, appeler, appelez, joindre, llamar, llame, llámame, chiamare, chiamami,
        ligar, bellen, bel, zadzwoń, extension, home, work""",
    "fax": "fax, telefax, facsimile, faks, faxnummer, télécopie, telecopie, факс, φαξ, fax number",
    "ssn": """ssn, ssns, social security, social security number, social security no, socialsecurity, seguro
        social, sécurité sociale américaine, ss number""",
    "itin": "itin, itins, individual taxpayer, taxpayer identification, taxpayer id, tin",
    "card": """card, cards, credit, debit, visa, mastercard, amex, discover, maestro, cc, ccn, credit card,
        kreditkarte, kreditkartennummer, kartennummer, carte, carte bancaire, carte de crédit, tarjeta,
        carta di credito, cartão, cartao, creditcard, karta, karty, kortnummer, kortti, κάρτα, karte,
        carta, kort, kaart, карта""",
    "driver": """driver license, driver licence, drivers license, drivers licence, driver license number, driving
        licence, driving license, driver lic, driving permit, dl number, operator license, führerschein,
        führerscheinnummer, permis de conduire, permiso de conducir, patente di guida, carta de
        condução, rijbewijs, rijbewijsnummer, prawo jazdy, körkort, ajokortti, dl""",
    "passport": """passport, passports, passport number, passport no, reisepass, reisepassnummer, passnummer,
        passeport, pasaporte, passaporto, passaporte, paspoort, paspoortnummer, paszport, paszportu,
        passi, pass nr, διαβατήριο, паспорт""",
    "id_card": """id card, identity card, national id, national identity, id number, identity number,
        personalausweis, personalausweisnummer, ausweisnummer, ausweis, carte identité, carte nationale,
        documento de identidad, carta identità, identiteitskaart, dowód osobisty, dowodu osobistego,
        cartão de cidadão, henkilökortti, občanský průkaz, лична карта, ταυτότητα, ταυτότητας""",
    "routing": "routing, routing number, aba, rtn, routing transit, aba number, transit number",
    "account": """account, acct, account number, account no, bank account, konto, kontonummer, numéro de compte,
        cuenta, número de cuenta, conto, conto corrente, rekening, rekeningnummer, rachunek, tilinumero,
        λογαριασμός, сметка, acc no, acct no, savings account, checking account, iban, compte bancaire,
        conta bancária""",
    "bic": "bic, swift, swift code, bic code, swift bic",
    "npi": "npi, national provider, provider identifier, provider id",
    "dea": "dea, dea number, medical license, medical licence, prescriber, dea no, dea registration",
    "mbi": "mbi, medicare, medicare beneficiary, beneficiary identifier, medicare number, medicare id",
    "mrn": """mrn, medical record, medical record number, medical records, patient id, patient number, patient
        no, patient identifier, chart number, record number, hospital number, case number, encounter,
        visit number, accession, specimen, patientennummer, patienten id, fallnummer, numéro patient,
        historia clínica, número de historia, cartella clinica, patiëntnummer, numer pacjenta, emr, ehr,
        emrn, mrns, ipp, pid, medical chart""",
    "plan": """health plan, beneficiary number, member id, member number, member no, policy number, policy no,
        subscriber id, subscriber number, insurance id, insurance number, medicaid, medicaid id, hicn,
        versichertennummer, krankenversicherungsnummer, versicherungsnummer, carte vitale, número de
        afiliado, tessera sanitaria, polisnummer, health insurance, payer id, plan number, plan id,
        claim number, claim no, krankenkasse, group number""",
    "certificate": """certificate, certificate number, certificate no, certification, cert, cert no, licence, license,
        license no, licence no, licensed, license id, permit, permit number, registration number, bar
        number, zertifikat, zertifikatsnummer, urkunde, certificat, certificado, certificato,
        approbation, professional license, nursing license, state license, registered nurse, rn license,
        pilot license, board certification""",
    "vehicle": """vin, vehicle identification, vehicle id, chassis, chassis number, fahrgestellnummer, fahrzeug
        identifizierungsnummer, numéro de châssis, bastidor, telaio, chassisnummer, numer vin""",
    "plate": """license plate, licence plate, plate, plates, plate number, number plate, registration plate, tag
        number, vehicle registration, car registration, reg no, kennzeichen, nummernschild, kfz
        kennzeichen, immatriculation, plaque, plaque immatriculation, matrícula, matricula, targa,
        kenteken, rejestracja, numer rejestracyjny, registreringsnummer, rekisteritunnus, rendszám, spz,
        πινακίδα""",
    "serial": "sn, serial",
    "imei": "imei, imeis, meid",
    "device": """serial, serial number, serial no, device id, device identifier, device serial, udi, unique
        device, equipment id, asset tag, asset number, model serial, seriennummer, gerätenummer, numéro
        de série, número de serie, numero di serie, matricola, serienummer, numer seryjny, udid, android
        id, advertising id, idfa, gaid, hardware id, machine id, iccid, imsi, insulin pump, implant
        serial, pacemaker serial""",
    "biometric": """fingerprint, fingerprints, finger print, voiceprint, voiceprints, voice print, faceprint, face
        template, facial template, palm print, palmprint, biometric, biometrics, hand geometry,
        fingerabdruck, empreinte digitale, huella dactilar, impronta digitale, vingerafdruk, retinal
        scan, retina scan, iris scan, iris template, retina template, dna profile""",
    "unique": """employee id, employee number, employee no, staff id, staff number, personnel number,
        personalnummer, student id, student number, student no, matrikelnummer, badge, badge number,
        badge id, customer id, customer number, customer no, kundennummer, user id, userid, unique id,
        unique identifier, subject id, subject number, study id, participant id, case id, client id,
        client number, trial id, numéro client, número de cliente, codice cliente, klantnummer, numer
        klienta, enrollee, respondent id, inmate number, docket, voter id, id no, tracking id, cookie
        id, session id""",
    "zip": """zip code, zipcode, postal, postal code, postcode, post code, postleitzahl, plz, code postal,
        código postal, codice postale, codigo postal, kod pocztowy, postinumero, postnummer,
        irányítószám, psč, zip, zipcodes""",
    "de_tax": """steuer id, steuerid, steueridentifikationsnummer, steuerliche identifikationsnummer, idnr,
        identifikationsnummer, steuer identifikationsnummer, steuernummer, tax id, tin""",
    "fr_nir": "nir, sécurité sociale, numéro de sécurité, securite sociale, numéro sécu, insee, sécu",
    "es_nif": "dni, nif, nie, documento nacional, número de identidad, identificación fiscal",
    "it_cf": "codice fiscale, cf, cod fisc, fiscale",
    "nl_bsn": "bsn, burgerservicenummer, sofinummer, sofi nummer, citizen service",
    "be_nrn": """rijksregisternummer, rijksregister, registre national, numéro national, niss, insz,
        nationalregister, numéro de registre, national register, nationaal nummer""",
    "pl_pesel": "pesel, pesel nr, numer pesel",
    "se_pnr": "personnummer, samordningsnummer, personnr, pnr, svenskt personnummer",
    "fi_hetu": "hetu, henkilötunnus, henkilotunnus, sotu, sosiaaliturvatunnus, personbeteckning",
    "dk_cpr": "cpr, cpr nummer, cpr nr, personnummer, cprnummer",
    "pt_nif": "nif, contribuinte, número de contribuinte, identificação fiscal, nipc",
    "at_svnr": "svnr, sozialversicherungsnummer, versicherungsnummer, sv nummer, sv nr, sozialversicherung, vsnr",
    "ie_pps": "pps, ppsn, pps number, personal public",
    "ro_cnp": "cnp, cod numeric, numeric personal",
    "cz_rc": "rodné číslo, rodne cislo, rč, rodného čísla, rc",
    "bg_egn": "егн, egn, единен граждански",
    "gr_amka": "αμκα, amka",
    "uk_nino": "nino, national insurance, national insurance number, ni number, ni no",
    "uk_nhs": "nhs, nhs number, nhs no, health service",
    "vat": """vat, vat number, vat id, vat no, ust, ustid, ust idnr, umsatzsteuer, umsatzsteuer
        identifikationsnummer, tva, numéro tva, iva, partita iva, btw, btw nummer, moms, alv, nip, dič,
        áfa, адс, φπα, αφμ, ддс, uid""",
    "not_personal": """release, order, invoice, isbn, issn, ean, sku, page, pages, chapter, section, figure, table,
        usd, eur, gbp, total, price, amount, sum, quantity, qty, score, ratio, percent, population,
        revenue, budget, rechnung, bestellung, build, port, doi, patent, article, artikel, paragraph,
        line, lines, version, ticket, issue, commit, suite, apt, apartment, unit, box, psc, room, floor,
        size, bytes, rows""",
}

_WORD = re.compile(r"[^\W\d_]{2,}")
_TOKEN = re.compile(r"[^\W\d_]{2,}|[0-9]{2,}")
"""Numbers between a word and a number make the word farther away."""
_MAX_WORDS = 3
WORDS_BACK = 8
LEFT_CHARS = 72
RIGHT_CHARS = 24
RIGHT_WORDS = 2


_JOINS = frozenset(" -(x")
"""What stands between a number and a word behind it that is about this number, and not about the next."""


def _phrases() -> dict[str, tuple[str, ...]]:
    topics: dict[str, list[str]] = {}
    for topic, phrases in PHRASES.items():
        for phrase in phrases.split(","):
            words = _WORD.findall(phrase.lower())
            if words:
                topics.setdefault(" ".join(words), []).append(topic)
    return {phrase: tuple(dict.fromkeys(names)) for phrase, names in topics.items()}


TOPICS: Mapping[str, tuple[str, ...]] = _phrases()
_LAST_WORDS = frozenset(phrase.rpartition(" ")[2] for phrase in TOPICS)


class Near:
    """A text, and what is said near any of its places."""

    __slots__ = ("_begins", "_tables", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._tables = tables(text, _of_cell)
        self._begins = [table.rows[0] for table in self._tables]

    def around(self, start: int, end: int) -> dict[str, float]:
        """Give the topics near the span `start:end`, and how many words away each is; a longer phrase is nearer.

        In a table they are those of the column's head and of the words in the same cell.
        """
        if self._tables:
            cell = self._tables[max(0, bisect_right(self._begins, start) - 1)].cell(self.text, start)
            if cell is not None:
                return {**cell[1], **_left(self.text[max(cell[0], start - LEFT_CHARS) : start])}
        found = _left(self.text[max(0, start - LEFT_CHARS) : start])
        _right(found, self.text, end)
        return found


def after(text: str, end: int) -> dict[str, float]:
    """Give the topics of the words right behind `end`, on the same line."""
    found: dict[str, float] = {}
    _right(found, text, end)
    return found


def _of_cell(text: str) -> dict[str, float]:
    return _left(text, away=0.5)


def _left(text: str, away: float = 0.0) -> dict[str, float]:
    words = _TOKEN.findall(text.lower())
    found: dict[str, float] = {}
    if not _LAST_WORDS.isdisjoint(words):
        for back, index in enumerate(range(len(words) - 1, max(-1, len(words) - 1 - WORDS_BACK), -1)):
            if words[index] in _LAST_WORDS:
                _note(found, words, index, away or back)
    return found


def _right(found: dict[str, float], text: str, end: int) -> None:
    if text[end : end + 1] == "/":
        return
    words = _WORD.findall(text[end : end + RIGHT_CHARS].partition("\n")[0].lower())[:RIGHT_WORDS]
    apart = 0.25 if text[end : end + 1] in _JOINS else 1.5
    for index, word in enumerate(words):
        if word in _LAST_WORDS:
            _note(found, words, index, index + apart)


def _note(found: dict[str, float], words: list[str], index: int, away: float) -> None:
    """Note the topics of the phrases of up to three words that end at `index`."""
    phrase = words[index]
    for longer in range(_MAX_WORDS):
        if longer:
            if longer > index:
                return
            phrase = f"{words[index - longer]} {phrase}"
        for topic in TOPICS.get(phrase, ()):
            found[topic] = min(found.get(topic, away), away - longer / 4)
